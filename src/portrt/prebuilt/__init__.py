"""adopt: a program of an engine that somebody else built."""
