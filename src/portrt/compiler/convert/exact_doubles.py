"""Keep float64 constants accurate: torch.onnx writes a Python float as a float32 constant.

Such a number is written as the sum of two float32 numbers, which keeps 48 bits of the mantissa, and
times powers of two where float32 has no such exponent.
"""

from __future__ import annotations

import math
from typing import Any

import torch

aten = torch.ops.aten
# Operator -> position of its number.
_VALUE_ARGUMENT = {
    aten.scalar_tensor.default: 0,
    aten.full.default: 1,
    aten.full_like.default: 1,
}

_SCALE = 2.0**120
_LARGEST, _SMALLEST = torch.finfo(torch.float32).max, 2.0**-100


def exact_doubles(graph_module: torch.fx.GraphModule) -> None:
    """Split the numbers that fill float64 tensors and are not exact in float32, in place."""
    graph = graph_module.graph
    for node in list(graph.nodes):
        position = _VALUE_ARGUMENT.get(node.target)
        value = node.meta.get("val")
        if position is None or not isinstance(value, torch.Tensor) or value.dtype != torch.float64:
            continue
        number = node.args[position]
        if not isinstance(number, float) or not math.isfinite(number):
            continue
        number, factor, times = _scaled(number)
        high = _single(number)
        if number == high and not times:
            continue
        fill = _Fill(graph, node, position)
        with graph.inserting_before(node.next):
            made = fill.sum_of(high, _single(number - high))
            for _ in range(times):
                made = fill.product(made, factor)
        node.replace_all_uses_with(made)
        graph.erase_node(node)


class _Fill:
    """Inserts nodes that fill tensors like a node does, and arithmetic on them."""

    def __init__(self, graph: torch.fx.Graph, node: torch.fx.Node, position: int) -> None:
        self._graph, self._node, self._position = graph, node, position

    def sum_of(self, high: float, low: float) -> torch.fx.Node:
        first = self._filled(high)
        return self._call(aten.add.Tensor, first, self._filled(low)) if low else first

    def product(self, value: torch.fx.Node, factor: float) -> torch.fx.Node:
        return self._call(aten.mul.Tensor, value, self._filled(factor))

    def _filled(self, number: float) -> torch.fx.Node:
        args: list[Any] = list(self._node.args)
        args[self._position] = number
        return self._call(self._node.target, *args, **self._node.kwargs)

    def _call(self, target: Any, *args: Any, **kwargs: Any) -> torch.fx.Node:
        made = self._graph.call_function(target, args, kwargs)
        made.meta = dict(self._node.meta)
        return made


def _scaled(number: float) -> tuple[float, float, int]:
    """Return a number in the range of float32, and the factor to apply to it, and how often."""
    times = 0
    while abs(number) > _LARGEST:
        number, times = number / _SCALE, times + 1
    if times:
        return number, _SCALE, times
    while 0 < abs(number) < _SMALLEST:
        number, times = number * _SCALE, times + 1
    return number, 1 / _SCALE, times


def _single(number: float) -> float:
    """Round to the nearest float32 number."""
    return float(torch.tensor(number, dtype=torch.float32))
