"""Compatibility of engines with machines: rules over data. Imports no torch."""
