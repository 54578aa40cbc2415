"""One file for each producer whose JSON needs no code."""
