"""Comparison of numbers, without knowledge of engines."""
