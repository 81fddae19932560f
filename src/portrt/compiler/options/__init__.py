"""Options of `compile`."""
