"""Compute every size from the sizes of the program's inputs.

If a size were read from an intermediate tensor, a block would have to return that tensor only so
that PyTorch can read its size. Sizes whose symbols are all known from inputs are computed from
those instead.
"""

from __future__ import annotations

import torch

from portrt.graphs import symbols


def hoist_sizes(graph_module: torch.fx.GraphModule) -> None:
    """Replace `aten.sym_size.int` of an intermediate tensor by arithmetic on input sizes."""
    graph = graph_module.graph
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    known = symbols.dimensions_of(placeholders)
    for node in list(graph.nodes):
        if node.target is not torch.ops.aten.sym_size.int or node.args[0].op == "placeholder":
            continue
        tree = symbols.tree_of_size(node.meta["val"], known)
        if tree is None:
            continue
        with graph.inserting_before(node):
            node.replace_all_uses_with(symbols.emit(graph, tree, placeholders))
        graph.erase_node(node)
    graph.lint()
    graph_module.recompile()
