"""Which engine runs where: rules over data. Imports no torch."""
