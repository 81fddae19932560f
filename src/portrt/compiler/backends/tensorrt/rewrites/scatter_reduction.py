"""Scatters with a reduction, which the parsers refuse: each output element selects its updates.

result[n] = reduce(data[n], updates whose index is n): a comparison of indices with positions, a
Where and a reduction, on tensors [positions, updates, ...] of bounded size. Exact but for the order
of the terms. A product with a 0/1 matrix would be smaller, but turn infinities into NaN.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from portrt.compiler.backends.tensorrt.rewrites.rule import Rule, constant, node_of

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


class _Elements(_Scatter):
    """A scatter along one axis."""

    def pattern(self, op: Any, data: Any, indices: Any, updates: Any) -> Any:
        return op.ScatterElements(data, indices, updates, _outputs=["result"])

    def is_bounded(self, data: ir.Value, indices: ir.Value, axis: int) -> bool:
        assert data.shape is not None and indices.shape is not None
        pairs = zip(data.shape, indices.shape, strict=True)
        alike = all(a == b for i, (a, b) in enumerate(pairs) if i != axis)
        return alike and self.is_small([*data.shape, indices.shape[axis]])

    def meant(self, op: Any, data: ir.Value, indices: ir.Value, axis: int) -> Any:
        """Return bools: whether an update (axis `axis + 1`) is for a position (axis `axis`)."""
        count = op.Shape(data, start=axis, end=axis + 1)
        indices = _not_negative(op, indices, count)
        shape = [1] * (len(data.shape or ()) + 1)
        shape[axis] = -1
        positions = op.Reshape(_range(op, count), constant(op, shape))
        return op.Equal(op.Unsqueeze(indices, constant(op, [axis])), positions)


class ScatterElements(_Elements):
    # TensorRT has a plugin that reduces, which its parser takes.
    libraries: ClassVar[tuple[str, ...]] = ("tensorrt_rtx",)
    refusal = "(importScatterElements): UNSUPPORTED_NODE_ATTR: Unsupported reduction type"

    def check(self, _: Any, data: ir.Value, indices: ir.Value, result: ir.Value, **__: Any) -> bool:
        if self.reduction_of(result) not in _REDUCTIONS or data.dtype not in _DTYPES:
            return False
        if data.shape is None or indices.shape is None:
            return False
        return self.is_bounded(data, indices, _axis(result, data))

    def rewrite(
        self, op: Any, data: ir.Value, indices: ir.Value, updates: ir.Value, result: ir.Value
    ) -> Any:
        axis = _axis(result, data)
        meant = self.meant(op, data, indices, axis)
        updates = op.Unsqueeze(updates, constant(op, [axis]))
        return _combined(op, self.reduction_of(result), data.dtype, data, meant, updates, axis + 1)


class ScatterFill(_Elements):
    """A scatter of one number, as torch.onnx writes it for include_self=False before a reduction.

    With differing updates for one index the result would be undefined, so those are not rewritten.
    """

    refusal = "Indices dimensions must be less than data dimensions!"

    def check(
        self, _: Any, data: ir.Value, indices: ir.Value, updates: ir.Value, result: ir.Value
    ) -> bool:
        if self.reduction_of(result) != "none" or data.shape is None or indices.shape is None:
            return False
        axis = _axis(result, data)
        positions, count = data.shape[axis], indices.shape[axis]
        if isinstance(positions, int) and isinstance(count, int) and count <= positions:
            return False
        return _filling(updates) is not None and self.is_bounded(data, indices, axis)

    def rewrite(
        self, op: Any, data: ir.Value, indices: ir.Value, updates: ir.Value, result: ir.Value
    ) -> Any:
        axis = _axis(result, data)
        meant = op.Cast(self.meant(op, data, indices, axis), to=ir.DataType.INT32)
        counted = op.ReduceMax(meant, constant(op, [axis + 1]), keepdims=0)
        named = op.Cast(counted, to=ir.DataType.BOOL)
        return op.Where(named, constant(op, _filling(updates), data.dtype), data)


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
        # the index of a row among all rows of the flattened data
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


def _axis(result: ir.Value, data: ir.Value) -> int:
    attribute = node_of(result).attributes.get("axis")
    return (0 if attribute is None else attribute.as_int()) % len(data.shape or ())


def _filling(updates: ir.Value) -> Any:
    """Return the number that all updates are equal to; None if that is not known."""
    source = updates.producer()
    if source is not None and source.op_type == "ConstantOfShape":
        value = source.attributes.get("value")
        return 0 if value is None else value.as_tensor().numpy().item()
    if updates.const_value is None or updates.const_value.size == 0:
        return None
    numbers = updates.const_value.numpy()
    return numbers.flat[0].item() if (numbers == numbers.flat[0]).all() else None


def _range(op: Any, count: Any) -> Any:
    """Insert a Range from 0 to a count of shape [1]."""
    return op.Range(constant(op, 0), op.Squeeze(count, constant(op, [0])), constant(op, 1))


def _not_negative(op: Any, indices: Any, sizes: Any) -> Any:
    """Convert indices to int64, and negative ones to positive ones."""
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
    """Reduce data [positions...] and the selected updates [positions, updates...]."""
    both, along = _REDUCTIONS[reduction]
    nothing = constant(op, _neutral(reduction, dtype), dtype)
    chosen = op.Where(meant, updates, nothing)
    reduced = getattr(op, along)(chosen, constant(op, [axis]), keepdims=0)
    return getattr(op, both)(data, reduced)


def _neutral(reduction: str, dtype: ir.DataType | None) -> float | int:
    """Return the neutral element of a reduction."""
    if reduction in ("add", "mul"):
        return 0 if reduction == "add" else 1
    assert dtype is not None
    if dtype.is_floating_point():
        return -math.inf if reduction == "max" else math.inf
    limits = np.iinfo(dtype.numpy())
    return int(limits.min if reduction == "max" else limits.max)


RULES = (ScatterElements, ScatterFill, ScatterND)
