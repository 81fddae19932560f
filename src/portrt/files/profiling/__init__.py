"""profile: what each layer of a compiled file costs here, and which nodes it computes."""
