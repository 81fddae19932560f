"""Operands of the complex rules: values whose operations add nodes to the graph."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.utils._pytree import tree_map

from portrt import torch_internals

aten = torch.ops.aten

# Complex dtype -> dtype of its parts. complex32 is left out: few PyTorch operators compute it.
REAL_DTYPES: Mapping[torch.dtype, torch.dtype] = {
    torch.complex64: torch.float32,
    torch.complex128: torch.float64,
}


@dataclass(frozen=True)
class Writer:
    """Adds nodes at the graph's insertion point.

    Attributes:
        graph: The graph.
        meta: Meta of the new nodes beside "val", such as the stack trace of the user's line.
        mode: The fake mode of the graph.
    """

    graph: torch.fx.Graph
    meta: Mapping[str, Any]
    mode: Any

    def call(self, target: Any, *args: Any, **kwargs: Any) -> Any:
        """Add a call of an operator on values, numbers and lists of those.

        Returns:
            A value, or a list of values for an operator with several results.
        """
        nodes = tree_map(_node, (args, kwargs))
        made: torch.fx.Node = self.graph.call_function(target, *nodes)
        given = torch.fx.node.map_arg((made.args, made.kwargs), lambda it: it.meta["val"])
        with torch_internals.inferring(self.mode):
            found = target(*given[0], **given[1])
        made.meta = {**self.meta, "val": found}
        if isinstance(found, torch.Tensor):
            return Value(made, self)
        return [self._item(made, index) for index in range(len(found))]

    def _item(self, source: torch.fx.Node, index: int) -> Value:
        made = self.graph.call_function(operator.getitem, (source, index))
        made.meta = {**self.meta, "val": source.meta["val"][index]}
        return Value(made, self)


@dataclass(frozen=True)
class Value:
    """A real tensor: a node, and the writer that adds operations on it."""

    node: torch.fx.Node
    writer: Writer

    @property
    def fake(self) -> torch.Tensor:
        found: torch.Tensor = self.node.meta["val"]
        return found

    def call(self, target: Any, *args: Any, **kwargs: Any) -> Any:
        """Call an operator with this tensor as its first argument."""
        return self.writer.call(target, self, *args, **kwargs)

    def zeros(self) -> Value:
        """Return zeros of the same shape and dtype."""
        found: Value = self.call(aten.zeros_like.default)
        return found

    def __add__(self, other: Any) -> Any:
        return self.call(aten.add.Tensor, other)

    def __sub__(self, other: Any) -> Any:
        return self.call(aten.sub.Tensor, other)

    def __mul__(self, other: Any) -> Any:
        return self.call(aten.mul.Tensor, other)

    def __truediv__(self, other: Any) -> Any:
        return self.call(aten.div.Tensor, other)

    def __neg__(self) -> Any:
        return self.call(aten.neg.default)


class Pair(NamedTuple):
    """A complex tensor as its real and its imaginary part, which have the same shape."""

    re: Any
    im: Any


def pair_of(value: Any) -> Pair:
    """Convert a complex or real tensor, or a Python number, to a pair; numbers stay numbers."""
    if isinstance(value, Pair):
        return value
    if isinstance(value, Value):
        return Pair(value, value.zeros())
    if isinstance(value, complex):
        return Pair(value.real, value.imag)
    return Pair(value, 0)


def parts_of(writer: Writer, real: Value) -> Pair:
    """Split a real tensor whose last dimension is (real, imaginary)."""
    return Pair(*(writer.call(aten.select.int, real, -1, part) for part in (0, 1)))


def _node(item: Any) -> Any:
    return item.node if isinstance(item, Value) else item
