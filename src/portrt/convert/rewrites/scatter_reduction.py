"""Scatters that reduce: each place of the result looks through all updates for those meant for it.

result[n] = reduce(data[n], the updates whose index is n): a comparison of indices with places, a
choice and a reduction, for tensors [places, updates, ...] of bounded size. Exact but for the order
of the terms, and infinities stay where they belong, which a product with a matrix of ones and zeros
would not give.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from portrt.convert.rewrites.rule import Rule, constant, node_of

# reduction -> the operator of two tensors, and the one along an axis
_REDUCTIONS = {
    "add": ("Add", "ReduceSum"),
    "mul": ("Mul", "ReduceProd"),
    "max": ("Max", "ReduceMax"),
    "min": ("Min", "ReduceMin"),
}
_DTYPES = (
    ir.DataType.FLOAT,
    ir.DataType.FLOAT16,
    ir.DataType.BFLOAT16,
    ir.DataType.INT32,
    ir.DataType.INT64,
)


class _Scatter(Rule):
    """A scatter whose reduction is one of `_REDUCTIONS`."""

    def reduction_of(self, result: ir.Value) -> str:
        attribute = node_of(result).attributes.get("reduction")
        return "none" if attribute is None else attribute.as_string()


class ScatterElements(_Scatter):
    # TensorRT has a plugin that reduces, which its parser takes.
    libraries: ClassVar[tuple[str, ...]] = ("tensorrt_rtx",)
    refusal = "(importScatterElements): UNSUPPORTED_NODE_ATTR: Unsupported reduction type"

    def pattern(self, op: Any, data: Any, indices: Any, updates: Any) -> Any:
        return op.ScatterElements(data, indices, updates, _outputs=["result"])

    def check(self, _: Any, data: ir.Value, indices: ir.Value, result: ir.Value, **__: Any) -> bool:
        if self.reduction_of(result) not in _REDUCTIONS or data.dtype not in _DTYPES:
            return False
        if data.shape is None or indices.shape is None:
            return False
        axis = _axis(result, len(data.shape))
        pairs = zip(data.shape, indices.shape, strict=True)
        alike = all(a == b for i, (a, b) in enumerate(pairs) if i != axis)
        return alike and self.is_small([*data.shape, indices.shape[axis]])

    def rewrite(
        self, op: Any, data: ir.Value, indices: ir.Value, updates: ir.Value, result: ir.Value
    ) -> Any:
        rank = len(data.shape or ())
        axis = _axis(result, rank)
        count = op.Shape(data, start=axis, end=axis + 1)
        indices = _not_negative(op, indices, count)
        shape = [1] * (rank + 1)
        shape[axis] = -1
        places = op.Reshape(_range(op, count), constant(op, shape))
        new_axis = constant(op, [axis])
        meant = op.Equal(op.Unsqueeze(indices, new_axis), places)
        updates = op.Unsqueeze(updates, new_axis)
        return _combined(op, self.reduction_of(result), data.dtype, data, meant, updates, axis + 1)


class ScatterND(_Scatter):
    refusal = "ScatterND with reduction is not supported"

    def pattern(self, op: Any, data: Any, indices: Any, updates: Any) -> Any:
        return op.ScatterND(data, indices, updates, _outputs=["result"])

    def check(self, _: Any, data: ir.Value, indices: ir.Value, result: ir.Value, **__: Any) -> bool:
        if self.reduction_of(result) not in _REDUCTIONS or data.dtype not in _DTYPES:
            return False
        if data.shape is None or indices.shape is None or not isinstance(indices.shape[-1], int):
            return False
        return self.is_small([*data.shape, *indices.shape[:-1]])

    def rewrite(
        self, op: Any, data: ir.Value, indices: ir.Value, updates: ir.Value, result: ir.Value
    ) -> Any:
        assert indices.shape is not None
        depth = int(str(indices.shape[-1]))
        sizes = op.Shape(data, end=depth)
        rest = op.Shape(data, start=depth)
        indices = _not_negative(op, indices, sizes)
        # the place of a row among all rows of the flattened data
        flat = op.Gather(indices, constant(op, 0), axis=-1)
        for i in range(1, depth):
            step = op.Gather(sizes, constant(op, i), axis=0)
            flat = op.Add(op.Mul(flat, step), op.Gather(indices, constant(op, i), axis=-1))
        width = op.ReduceProd(rest, keepdims=1)  # 1 where nothing is left
        rows = op.Reshape(data, op.Concat(constant(op, [-1]), width, axis=0))
        count = op.Shape(rows, start=0, end=1)
        flat = op.Reshape(flat, constant(op, [1, -1, 1]))
        meant = op.Equal(flat, op.Reshape(_range(op, count), constant(op, [-1, 1, 1])))
        updates = op.Reshape(updates, op.Concat(constant(op, [1, -1]), width, axis=0))
        found = _combined(op, self.reduction_of(result), data.dtype, rows, meant, updates, 1)
        return op.Reshape(found, op.Shape(data))


def _axis(result: ir.Value, rank: int) -> int:
    attribute = node_of(result).attributes.get("axis")
    return (0 if attribute is None else attribute.as_int()) % rank


def _range(op: Any, count: Any) -> Any:
    """From 0 to a number that is a tensor [1]."""
    return op.Range(constant(op, 0), op.Squeeze(count, constant(op, [0])), constant(op, 1))


def _not_negative(op: Any, indices: Any, sizes: Any) -> Any:
    """Indices as int64, those from the end counted from the beginning."""
    indices = op.Cast(indices, to=ir.DataType.INT64)
    return op.Where(op.Less(indices, constant(op, 0)), op.Add(indices, sizes), indices)


def _combined(
    op: Any,
    reduction: str,
    dtype: ir.DataType | None,
    data: Any,
    meant: Any,
    updates: Any,
    axis: int,
) -> Any:
    """Data [places...] and the updates [places, updates...] that are meant for each."""
    both, along = _REDUCTIONS[reduction]
    nothing = constant(op, _neutral(reduction, dtype), dtype)
    chosen = op.Where(meant, updates, nothing)
    reduced = getattr(op, along)(chosen, constant(op, [axis]), keepdims=0)
    return getattr(op, both)(data, reduced)


def _neutral(reduction: str, dtype: ir.DataType | None) -> float | int:
    """The number that changes nothing."""
    if reduction in ("add", "mul"):
        return 0 if reduction == "add" else 1
    assert dtype is not None
    if dtype.is_floating_point():
        return -math.inf if reduction == "max" else math.inf
    limits = np.iinfo(dtype.numpy())
    return int(limits.min if reduction == "max" else limits.max)


RULES = (ScatterElements, ScatterND)
