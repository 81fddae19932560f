"""Sizes of tensors: symbols, names, ranges, and the sizes that engines are tuned for."""
