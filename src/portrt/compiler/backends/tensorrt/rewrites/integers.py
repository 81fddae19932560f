"""Integer matrix products, and maxima and minima of bools, which the TensorRT parsers refuse.

A product is written as all elementwise products, [..., rows, inner, columns] of bounded size, and
their sums: exact as far as the library adds integers exactly.
"""

from __future__ import annotations

from itertools import zip_longest
from typing import Any, ClassVar

import onnx_ir as ir

from portrt.compiler.backends.tensorrt.rewrites.rule import Rule, constant, node_of

_INTEGERS = (ir.DataType.INT32, ir.DataType.INT64)


class MatMul(Rule):
    refusal = "operator: MatMul (checkNotInvalidType): UNSUPPORTED_NODE"

    def pattern(self, op: Any, x: Any, y: Any) -> Any:
        return op.MatMul(x, y)

    def check(self, _: Any, x: ir.Value, y: ir.Value) -> bool:
        if x.dtype not in _INTEGERS or x.shape is None or y.shape is None:
            return False
        one, other = self.bounds(x.shape), self.bounds(y.shape)
        if one is None or other is None or min(len(one), len(other)) < 2:
            return False
        batch = map(max, zip_longest(reversed(one[:-2]), reversed(other[:-2]), fillvalue=1))
        return self.is_small([*batch, *one[-2:], other[-1]])

    def rewrite(self, op: Any, x: ir.Value, y: ir.Value) -> Any:
        rows = op.Unsqueeze(x, constant(op, [-1]))
        columns = op.Unsqueeze(y, constant(op, [-3]))
        return op.ReduceSum(op.Mul(rows, columns), constant(op, [-2]), keepdims=0)


class _ExtremeOfBools(Rule):
    operator: ClassVar[str]

    def pattern(self, op: Any, x: Any) -> Any:
        return getattr(op, self.operator)(x, _allow_other_inputs=True, _outputs=["found"])

    def check(self, _: Any, x: ir.Value, **__: Any) -> bool:
        return x.dtype == ir.DataType.BOOL

    def rewrite(self, op: Any, x: ir.Value, found: ir.Value) -> Any:
        node = node_of(found)
        numbers = op.Cast(x, to=ir.DataType.INT32)
        reduced = getattr(op, self.operator)(numbers, *node.inputs[1:], **node.attributes)
        return op.Cast(reduced, to=ir.DataType.BOOL)


class AnyOfBools(_ExtremeOfBools):
    refusal = "operator: ReduceMax (checkNotInvalidType): UNSUPPORTED_NODE"
    operator = "ReduceMax"


class AllOfBools(_ExtremeOfBools):
    refusal = "operator: ReduceMin (checkNotInvalidType): UNSUPPORTED_NODE"
    operator = "ReduceMin"


RULES = (MatMul, AnyOfBools, AllOfBools)
