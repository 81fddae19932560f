"""Engines in parts, for backends that refuse some of a block that another backend takes."""
