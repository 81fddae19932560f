"""Sizes of a program's tensors: data-dependent sizes, names, and ranges for engine profiles."""
