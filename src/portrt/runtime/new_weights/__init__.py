"""New weights for a compiled program, without a build."""
