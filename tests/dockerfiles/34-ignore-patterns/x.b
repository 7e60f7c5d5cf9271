x.b
