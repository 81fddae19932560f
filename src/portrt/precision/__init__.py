"""The dtypes that engines compute in."""
