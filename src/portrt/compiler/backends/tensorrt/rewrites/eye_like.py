"""EyeLike of dynamic shape, which the parsers refuse: compare row and column indices."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from portrt.compiler.backends.tensorrt.rewrites.rule import Rule, constant, node_of


class EyeLike(Rule):
    refusal = "Eyelike does not work for dynamically shaped tensors"

    def pattern(self, op: Any, x: Any) -> Any:
        return op.EyeLike(x, _outputs=["eye"])

    def check(self, _: Any, x: ir.Value, eye: ir.Value) -> bool:
        return x.shape is not None and not x.shape.is_static() and eye.dtype is not None

    def rewrite(self, op: Any, x: ir.Value, eye: ir.Value) -> Any:
        offset = node_of(eye).attributes.get("k")
        rows, columns = (
            op.Range(
                constant(op, 0),
                op.Squeeze(op.Shape(x, start=axis, end=axis + 1), constant(op, [0])),
                constant(op, 1),
            )
            for axis in (0, 1)
        )
        diagonal = op.Add(rows, constant(op, 0 if offset is None else offset.as_int()))
        equal = op.Equal(op.Unsqueeze(diagonal, constant(op, [1])), columns)
        return op.Cast(equal, to=eye.dtype)


RULES = (EyeLike,)
