"""Operator coverage: a table of cases, each compiled, run and compared with eager PyTorch."""
