"""What is known of a graph and its nodes: graphs inside graphs, operators kept whole, origins, costs."""
