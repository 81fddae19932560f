"""Give the calls in branches names that are unique in the program.

Conversion and build errors identify a node by its name, and torch.export numbers the nodes of each
graph separately.
"""

from __future__ import annotations

import torch

from portrt.graphs import nested


def name_nested_nodes(graph_module: torch.fx.GraphModule, prefix: str = "") -> None:
    """Prefix the name of each call with the names of the branches around it.

    Args:
        graph_module: The outermost graph of a program; the graphs inside it are changed.
        prefix: Prefix of the names in the graphs inside it.
    """
    for node in list(graph_module.graph.nodes):
        for reader, inner in nested.graphs_of_call(graph_module, node).items():
            path = f"{prefix}{reader.target}_"
            for own in inner.graph.nodes:
                if own.op == "call_function":
                    own.name = f"{path}{own.name}"
            inner.recompile()
            name_nested_nodes(inner, path)
