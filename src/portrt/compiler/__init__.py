"""The compiler; its stages are capture, lower, partition, convert, build, package."""
