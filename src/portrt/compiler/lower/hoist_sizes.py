"""Compute every size from the sizes of the program's inputs.

If a size were read from an intermediate tensor, a block would have to return that tensor only so
that PyTorch can read its size. Sizes whose symbols are all known from inputs are computed from
those instead. So are sizes by operators that torch cannot save.
"""

from __future__ import annotations

import math

import torch

from portrt.graphs import symbols

# Seen in torch 2.13: torch.export.save fails on a program that calls one.
_UNSAVABLE = (math.floor, math.ceil, round)


def hoist_sizes(graph_module: torch.fx.GraphModule) -> None:
    """Replace `aten.sym_size.int` of an intermediate tensor by arithmetic on input sizes.

    And roundings, which torch cannot save.
    """
    graph = graph_module.graph
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    known = symbols.dimensions_of(placeholders)
    for node in list(graph.nodes):
        is_size = node.target is torch.ops.aten.sym_size.int
        if not (is_size or node.target in _UNSAVABLE):
            continue
        if is_size and node.args[0].op == "placeholder":
            continue
        tree = symbols.tree_of_size(node.meta["val"], known)
        if tree is None:
            continue
        with graph.inserting_before(node):
            found = symbols.emit(graph, tree, placeholders)
        if isinstance(found, torch.fx.Node):
            found.meta["val"] = node.meta["val"]
        node.replace_all_uses_with(found)
        graph.erase_node(node)
    graph.lint()
    graph_module.recompile()
