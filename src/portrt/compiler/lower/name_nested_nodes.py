"""Give the calls in branches names of their own, so that a name means one node of the program.

What fails to convert or to build is told by the name of its node, and torch counts anew in each
graph.
"""

from __future__ import annotations

import torch

from portrt.graphs import nested


def name_nested_nodes(graph_module: torch.fx.GraphModule, prefix: str = "") -> None:
    """Put the names of the branches around a call before its own.

    Args:
        graph_module: The graph of a whole program; the graphs inside it are changed.
        prefix: Of the names in the graphs inside it.
    """
    for node in list(graph_module.graph.nodes):
        for reader, inner in nested.graphs_of_call(graph_module, node).items():
            path = f"{prefix}{reader.target}_"
            for own in inner.graph.nodes:
                if own.op == "call_function":
                    own.name = f"{path}{own.name}"
            inner.recompile()
            name_nested_nodes(inner, path)
