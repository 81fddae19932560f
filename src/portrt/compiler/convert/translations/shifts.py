"""Translations of bit shifts, with PyTorch's results for amounts beyond the width.

torch.onnx shifts uint8 as int8, and leaves amounts that are negative or too large to the library.
ONNX Runtime shifts uint8, uint32 and uint64 alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from onnxscript import ir
from onnxscript import opset18 as op

aten = torch.ops.aten
_UINT8, _INT32, _INT64 = ir.DataType.UINT8, ir.DataType.INT32, ir.DataType.INT64
# Dtype -> the one in which ONNX shifts, and the one in which results are selected.
_SHIFTED_AS = {
    _UINT8: (_UINT8, _UINT8),
    ir.DataType.INT8: (_UINT8, _UINT8),
    ir.DataType.INT16: (ir.DataType.UINT32, _INT32),
    _INT32: (ir.DataType.UINT32, _INT32),
    _INT64: (ir.DataType.UINT64, _INT64),
}


def left_shift(self: Any, other: Any) -> Any:
    """Translate x << y: 0 for y beyond the width."""
    return _left(self, other, self.dtype)


def right_shift(self: Any, other: Any) -> Any:
    """Translate x >> y: all bits are the sign for y beyond the width, or 0 for uint8."""
    return _right(self, other, self.dtype)


def _left(x: Any, other: Any, dtype: ir.DataType) -> Any:
    container, held = _SHIFTED_AS[dtype]
    amount, inside = _amount(other, dtype.bitwidth)
    if amount is None:
        return _zeros(x, dtype)
    bits = op.BitShift(op.Cast(x, to=container), op.Cast(amount, to=container), direction="LEFT")
    found = op.Cast(bits, to=held)
    if inside is not None:
        found = op.Where(inside, found, op.Constant(value=ir.tensor(0, dtype=held)))
    return op.Cast(found, to=dtype)


def _right(x: Any, other: Any, dtype: ir.DataType) -> Any:
    amount, inside = _amount(other, dtype.bitwidth)
    if dtype == _UINT8:
        if amount is None:
            return _zeros(x, _UINT8)
        found = op.BitShift(x, op.Cast(amount, to=_UINT8), direction="RIGHT")
        if inside is not None:
            found = op.Where(inside, found, op.Constant(value=ir.tensor(0, dtype=_UINT8)))
        return found
    held = _INT64 if dtype == _INT64 else _INT32
    container, _ = _SHIFTED_AS[held]
    last = op.Constant(value=ir.tensor(dtype.bitwidth - 1, dtype=_INT64))
    amount = last if amount is None else amount
    if inside is not None:
        amount = op.Where(inside, amount, last)
    wide = op.Cast(x, to=held)
    # Bits of a negative number are inverted before and after, so that zeros are shifted in.
    zero, ones = (op.Constant(value=ir.tensor(fill, dtype=held)) for fill in (0, -1))
    signs = op.Where(op.Less(wide, zero), ones, zero)
    bits = op.BitShift(
        op.Cast(op.BitwiseXor(wide, signs), to=container),
        op.Cast(amount, to=container),
        direction="RIGHT",
    )
    found = op.BitwiseXor(op.Cast(bits, to=held), signs)
    return op.Cast(found, to=dtype)


def _amount(other: Any, width: int) -> tuple[Any, Any]:
    """Return the amount as a value, and whether it is within the width.

    The amount is None for a number that is not, and the latter None for a number.
    """
    if isinstance(other, int):
        inside = 0 <= other < width
        return (op.Constant(value=ir.tensor(other, dtype=_INT64)) if inside else None), None
    wide = op.Cast(other, to=_INT64)
    zero, limit = (op.Constant(value=ir.tensor(fill, dtype=_INT64)) for fill in (0, width))
    inside = op.And(op.GreaterOrEqual(wide, zero), op.Less(wide, limit))
    return op.Where(inside, wide, zero), inside


def _zeros(like: Any, dtype: ir.DataType) -> Any:
    return op.ConstantOfShape(op.Shape(like), value=ir.tensor([0], dtype=dtype))


def _of_number(shift: Callable[..., Any]) -> Callable[..., Any]:
    """Translate the overload whose first operand is a number."""

    def shifted(self: int, other: Any) -> Any:
        number = op.Constant(value=ir.tensor(self, dtype=other.dtype))
        return shift(number, other, other.dtype)

    return shifted


TRANSLATIONS: tuple[tuple[Any, Callable[..., Any]], ...] = (
    (aten.bitwise_left_shift.Tensor, left_shift),
    (aten.bitwise_left_shift.Tensor_Scalar, left_shift),
    (aten.bitwise_left_shift.Scalar_Tensor, _of_number(_left)),
    (aten.__lshift__.Tensor, left_shift),
    (aten.__lshift__.Scalar, left_shift),
    (aten.bitwise_right_shift.Tensor, right_shift),
    (aten.bitwise_right_shift.Tensor_Scalar, right_shift),
    (aten.bitwise_right_shift.Scalar_Tensor, _of_number(_right)),
    (aten.__rshift__.Tensor, right_shift),
    (aten.__rshift__.Scalar, right_shift),
)
