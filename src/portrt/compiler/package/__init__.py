"""Packaging: engine calls in an ExportedProgram, and saving it to a file."""
