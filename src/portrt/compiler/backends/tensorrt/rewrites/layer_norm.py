"""LayerNormalization with mean and inverse standard deviation, outputs that the parsers refuse.

The normalized tensor stays one node; the statistics are computed beside it. For float32 only: in
half precision ONNX has the statistics in float32 and PyTorch in half.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from portrt.compiler.backends.tensorrt.rewrites.rule import Rule, constant, is_used, node_of


class LayerNormStatistics(Rule):
    refusal = "doesn't support mode than 1 outputs for LayerNormalization nodes!"

    def pattern(self, op: Any, x: Any, scale: Any) -> Any:
        return op.LayerNormalization(
            x, scale, _allow_other_inputs=True, _outputs=["y", "mean", "inverse"]
        )

    def check(
        self,
        _: Any,
        x: ir.Value,
        mean: ir.Value | None = None,  # nodes without these outputs match, too
        inverse: ir.Value | None = None,
        **__: Any,
    ) -> bool:
        used = [value for value in (mean, inverse) if value is not None and is_used(value)]
        known = inverse is not None and x.dtype == ir.DataType.FLOAT and x.shape is not None
        return known and bool(used)

    def rewrite(self, op: Any, x: ir.Value, y: ir.Value, **_: Any) -> Any:
        node = node_of(y)
        attributes = node.attributes
        normalized = op.LayerNormalization(*node.inputs, **attributes)
        rank = len(x.shape or ())
        first = attributes["axis"].as_int() if "axis" in attributes else -1
        epsilon = attributes["epsilon"].as_float() if "epsilon" in attributes else 1e-5
        axes = constant(op, list(range(first % rank, rank)))
        mean = op.ReduceMean(x, axes, keepdims=1)
        centred = op.Sub(x, mean)
        variance = op.ReduceMean(op.Mul(centred, centred), axes, keepdims=1)
        deviation = op.Sqrt(op.Add(variance, constant(op, epsilon, ir.DataType.FLOAT)))
        return normalized, mean, op.Reciprocal(deviation)


RULES = (LayerNormStatistics,)
