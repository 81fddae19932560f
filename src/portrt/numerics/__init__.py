"""Comparison of outputs, independent of engines."""
