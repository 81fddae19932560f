"""Computed sizes that may be 0 in a reshape, which ONNX's Reshape takes for those of its input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from portrt import torch_internals

aten = torch.ops.aten


def zeros_as_sizes(graph_module: torch.fx.GraphModule, ranges: Mapping[Any, Any]) -> None:
    """Rewrite reshapes to sizes that may be 0 in place, as views.

    torch.onnx translates a view with `allowzero=1`, a reshape without, and both compute the same. A
    reshape to other sizes stays: ONNX Runtime fuses only those without.

    Args:
        graph_module: Its nodes have fake values.
        ranges: Symbol -> ValueRanges of the program that the graph is from.
    """
    for node in graph_module.graph.nodes:
        if node.target is not aten.reshape.default:
            continue
        sizes = node.args[1]
        if -1 not in sizes and any(_may_be_zero(size, ranges) for size in sizes):
            node.target = aten.view.default


def _may_be_zero(size: Any, ranges: Mapping[Any, Any]) -> bool:
    value = size.meta.get("val") if isinstance(size, torch.fx.Node) else size
    if not isinstance(value, torch.SymInt):
        return value == 0
    known = {**torch_internals.traced_ranges(value), **ranges}
    return bool(torch_internals.bounds(torch_internals.expression_of(value), known).lower <= 0)
