"""FX graphs and their nodes: nested graphs, symbolic sizes, recurrent layers, origins, costs."""
