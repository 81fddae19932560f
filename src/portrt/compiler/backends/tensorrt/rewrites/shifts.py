"""BitShift, which the TensorRT parsers lack, as they lack the unsigned dtypes that it is for.

The models shift int32 and int64 between a cast to an unsigned dtype and one back. That becomes
arithmetic in the signed dtype that never overflows, so that nothing depends on how a library wraps:
factors are powers of two below the highest, which has no positive number and is selected. uint8 is
shifted in int32. All of this is exact.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import onnx_ir as ir

from portrt.compiler.backends.tensorrt.rewrites.rule import Rule, constant, node_of
from portrt.compiler.convert.onnx_nodes import cast_source

_UINT8, _INT32, _INT64 = ir.DataType.UINT8, ir.DataType.INT32, ir.DataType.INT64
_UNSIGNED = {(ir.DataType.UINT32, _INT32), (ir.DataType.UINT64, _INT64)}
_BITS = {_INT32: 32, _INT64: 64}


@dataclasses.dataclass(frozen=True)
class _Shift:
    """A shift of signed integers as if they were unsigned.

    Attributes:
        op: Makes the nodes.
        x: What is shifted.
        amount: By how much, of the same dtype: 0 to its last bit.
        dtype: The dtype.
    """

    op: Any
    x: Any
    amount: Any
    dtype: ir.DataType

    def left(self) -> Any:
        """Multiply the bits that remain, and select that of the sign."""
        op, last = self.op, self._number(self._last)
        kept = self._power(op.Sub(last, self.amount))
        rest = op.Mod(self.x, kept)
        next_bit = op.Mod(op.Div(op.Sub(self.x, rest), kept), self._number(2))
        is_negative = op.Equal(next_bit, self._number(1))
        # By the last bit the rest is 0, so that its factor does not matter.
        found = op.Mul(rest, self._power(self.amount))
        return self._unless_zero(self._plus(found, is_negative, self._number(self._lowest)))

    def right(self) -> Any:
        """Divide what is below the bit of the sign, and add the place where that is shifted to."""
        op, last = self.op, self._number(self._last)
        is_negative = op.Less(self.x, self._number(0))
        rest = op.Where(is_negative, op.Sub(self.x, self._number(self._lowest)), self.x)
        quotient = op.Div(rest, self._power(self.amount))
        quotient = op.Where(op.Equal(self.amount, last), self._number(0), quotient)
        place = self._power(op.Sub(last, self.amount))
        return self._unless_zero(self._plus(quotient, is_negative, place))

    @property
    def _last(self) -> int:
        return _BITS[self.dtype] - 1

    @property
    def _lowest(self) -> int:
        return -(1 << self._last)

    def _number(self, number: int) -> Any:
        return constant(self.op, number, self.dtype)

    def _power(self, exponent: Any) -> Any:
        """Return a power of two; for the last bit, which has none, that of the bit before."""
        highest = self._last - 1
        powers = constant(self.op, [2**k for k in range(highest + 1)], self.dtype)
        is_known = self.op.Less(exponent, self._number(self._last))
        return self.op.Gather(powers, self.op.Where(is_known, exponent, self._number(highest)))

    def _plus(self, x: Any, condition: Any, term: Any) -> Any:
        return self.op.Add(x, self.op.Where(condition, term, self._number(0)))

    def _unless_zero(self, found: Any) -> Any:
        return self.op.Where(self.op.Equal(self.amount, self._number(0)), self.x, found)


class SignedShift(Rule):
    refusal = "convertDtype(onnxType, &newType)"

    def pattern(self, op: Any, shifted: Any) -> Any:
        return op.Cast(shifted, _outputs=["found"])

    def check(self, _: Any, shifted: ir.Value, found: ir.Value) -> bool:
        node = shifted.producer()
        if node is None or node.op_type != "BitShift" or found.dtype not in _BITS:
            return False
        x, amount = map(_source, node.inputs)
        if x is None or amount is None:
            return False
        is_signed = x.const_value is not None or x.dtype == found.dtype
        return is_signed and (shifted.dtype, found.dtype) in _UNSIGNED

    def rewrite(self, op: Any, shifted: ir.Value, found: ir.Value) -> Any:
        assert found.dtype is not None
        return _shifted(op, node_of(shifted), found.dtype)


class ByteShift(Rule):
    refusal = "operator: BitShift (checkBitShift): UNSUPPORTED_NODE"

    def pattern(self, op: Any, x: Any, amount: Any) -> Any:
        return op.BitShift(x, amount, _outputs=["found"])

    def check(self, _: Any, x: ir.Value, **__: Any) -> bool:
        return x.dtype == _UINT8

    def rewrite(self, op: Any, found: ir.Value, **_: Any) -> Any:
        bits = _shifted(op, node_of(found), _INT32)
        return op.Cast(op.Mod(bits, constant(op, 256, _INT32)), to=_UINT8)


class SelectedBytes(Rule):
    """Where of uint8, as after a shift by a tensor."""

    refusal = "operator: Where (checkNotInvalidType): UNSUPPORTED_NODE"

    def pattern(self, op: Any, condition: Any, x: Any, y: Any) -> Any:
        return op.Where(condition, x, y)

    def check(self, _: Any, x: ir.Value, **__: Any) -> bool:
        return x.dtype == _UINT8

    def rewrite(self, op: Any, condition: ir.Value, x: ir.Value, y: ir.Value) -> Any:
        x, y = (_as(op, value, _INT32) for value in (x, y))
        return op.Cast(op.Where(condition, x, y), to=_UINT8)


class FilledBytes(Rule):
    """ConstantOfShape of uint8, as for a shift beyond the width."""

    refusal = "operator: ConstantOfShape (checkConstantOfShape): UNSUPPORTED_NODE_DATATYPE"

    def pattern(self, op: Any, shape: Any) -> Any:
        return op.ConstantOfShape(shape, _outputs=["found"])

    def check(self, _: Any, found: ir.Value, **__: Any) -> bool:
        return found.dtype == _UINT8

    def rewrite(self, op: Any, shape: ir.Value, found: ir.Value) -> Any:
        fill = node_of(found).attributes["value"].as_tensor().numpy().astype("int32")
        return op.Cast(op.ConstantOfShape(shape, value=ir.tensor(fill)), to=_UINT8)


def _shifted(op: Any, node: ir.Node, dtype: ir.DataType) -> Any:
    x, amount = (_as(op, value, dtype) for value in node.inputs)
    shift = _Shift(op, x, amount, dtype)
    return shift.left() if node.attributes["direction"].as_string() == "LEFT" else shift.right()


def _source(value: ir.Value | None) -> ir.Value | None:
    """Return a constant, a byte, or what a value was cast to uint32 or uint64 from, or None."""
    if value is None or value.const_value is not None or value.dtype == _UINT8:
        return value
    return cast_source(value)


def _as(op: Any, value: ir.Value | None, dtype: ir.DataType) -> Any:
    """Return what `_source` does, in another dtype."""
    source = _source(value)
    assert source is not None
    if source.const_value is not None:
        return constant(op, source.const_value.numpy(), dtype)
    return source if source.dtype == dtype else op.Cast(source, to=dtype)


RULES = (SignedShift, ByteShift, SelectedBytes, FilledBytes)
