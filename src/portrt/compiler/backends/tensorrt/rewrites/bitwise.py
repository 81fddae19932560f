"""Bitwise operators of integers: the TensorRT parsers refuse BitwiseAnd, Or, Xor and Not.

Each integer is split into bits along a new last axis, 16 bits at a time: `x - x mod 2^k` is
divisible by `2^k`, so that nothing overflows and no division rounds, and sums of 16 bits are exact
in any dtype that a library accumulates in. `not x` is `-1 - x`. All of this is exact.

torch.onnx writes logical operators for bools. uint8 is computed in int32.
"""

from __future__ import annotations

from itertools import zip_longest
from typing import Any, ClassVar

import onnx_ir as ir

from portrt.compiler.backends.tensorrt.rewrites.rule import Rule, constant, node_of

_UINT8, _INT32 = ir.DataType.UINT8, ir.DataType.INT32
# Dtype -> number of bits below that of the sign.
_BITS = {_UINT8: 8, _INT32: 31, ir.DataType.INT64: 63}
_AT_ONCE = 16


class _Bitwise(Rule):
    """A bitwise operator of two tensors."""

    operator: ClassVar[str]
    logical: ClassVar[str]

    def pattern(self, op: Any, x: Any, y: Any) -> Any:
        return getattr(op, self.operator)(x, y)

    def check(self, _: Any, x: ir.Value, y: ir.Value) -> bool:
        if x.dtype not in _BITS or x.shape is None or y.shape is None:
            return False
        one, other = self.bounds(x.shape), self.bounds(y.shape)
        if one is None or other is None:
            return False
        pairs = zip_longest(reversed(one), reversed(other), fillvalue=1)
        return self.is_small([*map(max, pairs), _AT_ONCE])

    def rewrite(self, op: Any, x: ir.Value, y: ir.Value) -> Any:
        dtype = x.dtype
        assert dtype is not None
        top = _BITS[dtype]
        if dtype == _UINT8:
            x, y = (op.Cast(value, to=_INT32) for value in (x, y))
            return op.Cast(self._combined(op, x, y, _INT32, top), to=dtype)
        return self._combined(op, x, y, dtype, top)

    def _combined(self, op: Any, x: Any, y: Any, dtype: ir.DataType, top: int) -> Any:
        logical = getattr(op, self.logical)
        zero = constant(op, 0, dtype)
        signs = logical(op.Less(x, zero), op.Less(y, zero))
        found = op.Where(signs, constant(op, -(2**top), dtype), zero)
        for first in range(0, top, _AT_ONCE):
            positions = range(first, min(first + _AT_ONCE, top))
            powers = constant(op, [2**k for k in positions], dtype)
            bits = logical(*(_bits(op, value, powers, dtype) for value in (x, y)))
            low = constant(op, [2 ** (k - first) for k in positions], dtype)
            part = op.ReduceSum(op.Where(bits, low, zero), constant(op, [-1]), keepdims=0)
            found = op.Add(found, op.Mul(part, constant(op, 2**first, dtype)))
        return found


def _bits(op: Any, x: ir.Value, powers: ir.Value, dtype: ir.DataType) -> Any:
    """Return bools [..., powers], the bits of two's complement at these powers of two."""
    x = op.Unsqueeze(x, constant(op, [-1]))
    shifted = op.Div(op.Sub(x, op.Mod(x, powers)), powers)
    return op.Equal(op.Mod(shifted, constant(op, 2, dtype)), constant(op, 1, dtype))


class And(_Bitwise):
    refusal = "operator: BitwiseAnd (checkBitwiseAnd): UNSUPPORTED_NODE"
    operator = "BitwiseAnd"
    logical = "And"


class Or(_Bitwise):
    refusal = "operator: BitwiseOr (checkBitwiseOr): UNSUPPORTED_NODE"
    operator = "BitwiseOr"
    logical = "Or"


class Xor(_Bitwise):
    refusal = "operator: BitwiseXor (checkBitwiseXor): UNSUPPORTED_NODE"
    operator = "BitwiseXor"
    logical = "Xor"


class Not(Rule):
    refusal = "operator: BitwiseNot (checkBitwiseNot): UNSUPPORTED_NODE"

    def pattern(self, op: Any, x: Any) -> Any:
        return op.BitwiseNot(x)

    def check(self, _: Any, x: ir.Value) -> bool:
        return x.dtype in _BITS

    def rewrite(self, op: Any, x: ir.Value) -> Any:
        if x.dtype == _UINT8:
            inverted = op.Sub(constant(op, 255, _INT32), op.Cast(x, to=_INT32))
            return op.Cast(inverted, to=_UINT8)
        return op.Sub(constant(op, -1, x.dtype), x)


class XorOfSigns(Rule):
    """Xor with 0 or -1, selected by a condition: the bits of some numbers are inverted."""

    refusal = "operator: BitwiseXor (checkBitwiseXor): UNSUPPORTED_NODE"

    def pattern(self, op: Any, x: Any, signs: Any) -> Any:
        return op.BitwiseXor(x, signs)

    def check(self, _: Any, x: ir.Value, signs: ir.Value) -> bool:
        node = signs.producer()
        if x.dtype not in _BITS or x.dtype == _UINT8 or node is None or node.op_type != "Where":
            return False
        ones, zero = (value.const_value if value else None for value in node.inputs[1:])
        if ones is None or zero is None:
            return False
        return bool((ones.numpy() == -1).all() and (zero.numpy() == 0).all())

    def rewrite(self, op: Any, x: ir.Value, signs: ir.Value) -> Any:
        condition, ones, _ = node_of(signs).inputs
        return op.Where(condition, op.Sub(ones, x), x)


RULES = (XorOfSigns, And, Or, Xor, Not)
