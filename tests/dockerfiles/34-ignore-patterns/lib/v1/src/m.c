lib/v1/src/m.c
