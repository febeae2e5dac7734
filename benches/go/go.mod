module peers

go 1.20

require golang.org/x/sync v0.10.0
