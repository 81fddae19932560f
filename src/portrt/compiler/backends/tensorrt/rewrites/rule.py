"""Base class and helpers of the rewrite rules, and the limit of their tensors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir
from onnxscript.rewriter import RewriteRuleClassBase

# Name of a dynamic dimension -> the largest size that engines are built for.
Largest = Mapping[str, int]

# Limit of elements of an intermediate tensor that a rule introduces: 64 MiB of float32, if the
# engine writes it to memory at all.
MAX_ELEMENTS = 1 << 24


class Rule(RewriteRuleClassBase):  # type: ignore[misc]
    """A rewrite rule.

    Attributes:
        refusal: The parser's error message for the node that the rule replaces.
        libraries: The libraries whose parsers refuse it.
    """

    refusal: ClassVar[str]
    libraries: ClassVar[tuple[str, ...]] = ("tensorrt", "tensorrt_rtx")

    def __init__(self, largest: Largest) -> None:
        super().__init__()
        self.largest = largest

    def bounds(self, sizes: Iterable[Any]) -> list[int] | None:
        """Return the maximum of each size; None if one of them is unbounded."""
        found = [size if isinstance(size, int) else self._bound(str(size)) for size in sizes]
        return None if None in found else [size for size in found if size is not None]

    def _bound(self, size: str) -> int | None:
        """Return the maximum of a size that torch writes as a name or as "2*s61 + 1"."""
        terms = [
            [self._known(factor.strip()) for factor in term.split("*")] for term in size.split("+")
        ]
        if any(None in term for term in terms):
            return None
        return sum(math.prod(factor for factor in term if factor is not None) for term in terms)

    def _known(self, factor: str) -> int | None:
        return int(factor) if factor.isdecimal() else self.largest.get(factor)

    def is_small(self, sizes: Iterable[Any]) -> bool:
        """Return whether a tensor of these sizes is known to be within `MAX_ELEMENTS`."""
        found = self.bounds(sizes)
        return found is not None and math.prod(found) <= MAX_ELEMENTS


def constant(op: Any, values: Any, dtype: ir.DataType | None = None) -> ir.Value:
    """Make a constant of a number, or of a list of numbers; int64 by default."""
    dtype = dtype or ir.DataType.INT64
    found: ir.Value = op.Constant(value=ir.tensor(np.asarray(values).astype(dtype.numpy()), dtype))
    return found


def node_of(value: ir.Value) -> ir.Node:
    """Return the node that produces a matched value."""
    node = value.producer()
    assert node is not None
    return node


def numbers(node: ir.Node, name: str, instead: Iterable[int]) -> list[int]:
    """Return an attribute of integers, or its default."""
    attribute = node.attributes.get(name)
    return list(instead) if attribute is None else list(attribute.as_ints())


def is_used(value: ir.Value) -> bool:
    """Return whether a node reads a value, or it is a graph output."""
    return bool(value.uses()) or value.is_graph_output()
