"""Compile side, in the order of the data: capture, lower, partition, convert, build, package."""
