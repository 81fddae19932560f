"""profile: times each layer of a compiled file here, and names the nodes that it computes."""
