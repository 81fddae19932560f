"""CUDA graphs, for the sessions of every backend."""
