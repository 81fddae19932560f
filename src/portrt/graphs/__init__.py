"""Graphs and their nodes: graphs inside graphs, operators kept whole, origins, costs."""
