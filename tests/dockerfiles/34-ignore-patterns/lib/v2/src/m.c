lib/v2/src/m.c
