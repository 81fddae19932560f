"""Sizes that must not be 0 for an engine's library to run a block as PyTorch does."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from portrt.compiler.plan import Block
from portrt.format import size_expr
from portrt.graphs import nested, symbols


def nonzero_sizes(
    block: Block, sizes_of: Callable[[torch.fx.Node], Iterable[Any]]
) -> list[size_expr.Tree]:
    """Return an expression tree for each dynamic size of certain nodes that may be 0.

    Args:
        block: The block.
        sizes_of: Returns the sizes of a node that must not be 0.
    """
    graph_module = block.program.graph_module
    inputs = [node for node in graph_module.graph.nodes if node.op == "placeholder"]
    known = symbols.dimensions_of(inputs[: len(block.inputs)])
    found: dict[str, size_expr.Tree] = {}
    for node in nested.all_nodes(graph_module):
        for size in sizes_of(node) if nested.is_operator(node) else ():
            if isinstance(size, torch.SymInt) and may_be_zero(size, block.program):
                tree = symbols.tree_of_size(size, known)
                if tree is not None:  # else it is data-dependent
                    found.setdefault(str(tree), tree)
    return list(found.values())


def may_be_zero(size: torch.SymInt, program: torch.export.ExportedProgram) -> bool:
    """Return whether a dynamic size of a program may be 0."""
    return symbols.range_of(size, program.range_constraints)[0] == 0


def sizes_of_tensors(nodes: Iterable[torch.fx.Node]) -> list[Any]:
    """Return all sizes of the tensors that nodes are or have as results."""
    found: list[Any] = []
    for node in nodes:
        value: Any = node.meta.get("val")
        for tensor in value if isinstance(value, (list, tuple)) else [value]:
            found += tensor.shape if isinstance(tensor, torch.Tensor) else ()
    return found
