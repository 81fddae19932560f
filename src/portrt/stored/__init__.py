"""What is done with a compiled file or program from its sources; no model code."""
