"""Random graphs, compiled, saved, loaded in a new process and compared with eager PyTorch."""
