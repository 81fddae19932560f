"""Keep constants exact: torch.onnx writes a Python float as a float32 constant, and -0.0 as 0.0.

A float64 number is written as the sum of three float32 numbers, which has all bits of the mantissa,
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
        if number == _single(number) and not times:
            continue
        fill = _Fill(graph, node, position)
        with graph.inserting_before(node.next):
            made = fill.sum_of(number)
            for _ in range(times):
                made = fill.product(made, factor)
        node.replace_all_uses_with(made)
        graph.erase_node(node)


class _NegativeZero(float):
    """-0.0 that equals no 0.0: torch.onnx finds constants again by their value."""

    __hash__ = float.__hash__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _NegativeZero)


def signed_zeros(graph_module: torch.fx.GraphModule) -> None:
    """Keep -0.0 among the arguments apart from 0.0, in place."""
    for node in graph_module.graph.nodes:
        arguments = (node.args, node.kwargs)
        node.args, node.kwargs = torch.fx.node.map_aggregate(arguments, _signed_zero)


def _signed_zero(argument: Any) -> Any:
    is_negative = isinstance(argument, float) and argument == 0 and math.copysign(1, argument) < 0
    return _NegativeZero(-0.0) if is_negative else argument


class _Fill:
    """Inserts nodes that fill tensors like a node does, and arithmetic on them."""

    def __init__(self, graph: torch.fx.Graph, node: torch.fx.Node, position: int) -> None:
        self._graph, self._node, self._position = graph, node, position

    def sum_of(self, number: float) -> torch.fx.Node:
        """Add what float32 has of the number, and of what it does not have, largest first."""
        made = self._filled(_single(number))
        rest = number - _single(number)
        while rest:
            made = self._call(aten.add.Tensor, made, self._filled(_single(rest)))
            rest -= _single(rest)
        return made

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
