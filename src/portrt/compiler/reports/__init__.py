"""Compile reports: what goes to engines, and what stays in PyTorch for which reason."""
