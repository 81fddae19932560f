"""MaxPool with indices, an output that the parsers refuse.

The values stay one node. The indices come from a loop over the window in the order of its elements:
a later element wins only if it is greater, so that the first of equal elements is found, as in
PyTorch. Padding is minus infinity with index -1, which any element replaces.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import onnx_ir as ir

from portrt.compiler.backends.tensorrt.rewrites.rule import (
    Rule,
    constant,
    is_used,
    node_of,
    numbers,
)

# Limit of elements of a window; each becomes a few nodes.
_MAX_ELEMENTS = 64
_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


class MaxPoolIndices(Rule):
    refusal = "doesn't support mode than 1 outputs for MaxPool nodes!"

    def pattern(self, op: Any, x: Any) -> Any:
        return op.MaxPool(x, _outputs=["values", "indices"])

    def check(self, _: Any, x: ir.Value, values: ir.Value, indices: ir.Value | None = None) -> bool:
        if indices is None or not is_used(indices):
            return False
        given = node_of(values).attributes
        padding = given["auto_pad"].as_string() if "auto_pad" in given else "NOTSET"
        by_columns = "storage_order" in given and given["storage_order"].as_int() != 0
        is_plain = padding == "NOTSET" and not by_columns
        window = math.prod(given["kernel_shape"].as_ints())
        return is_plain and window <= _MAX_ELEMENTS and x.dtype in _FLOATS

    def rewrite(self, op: Any, x: ir.Value, values: ir.Value, **_: Any) -> Any:
        node = node_of(values)
        pooled = op.MaxPool(x, **node.attributes)
        kernel = list(node.attributes["kernel_shape"].as_ints())
        rank = len(kernel)
        strides = numbers(node, "strides", [1] * rank)
        gaps = numbers(node, "dilations", [1] * rank)
        pads = numbers(node, "pads", [0] * 2 * rank)
        ceil = node.attributes.get("ceil_mode")
        # With ceil_mode the last window may begin one stride later.
        beyond = [stride - 1 if ceil and ceil.as_int() else 0 for stride in strides]

        plane = op.Shape(x, start=2)
        area = op.ReduceProd(plane, keepdims=0)
        position = op.Reshape(_range(op, area), op.Concat(constant(op, [1, 1]), plane, axis=0))
        outside = any(pads) or any(beyond)
        if outside:
            sides = [
                0,
                0,
                *pads[:rank],
                0,
                0,
                *(a + b for a, b in zip(pads[rank:], beyond, strict=True)),
            ]
            x = op.Pad(x, constant(op, sides), constant(op, -math.inf, x.dtype))
            position = op.Pad(position, constant(op, sides), constant(op, -1))

        last = op.Sub(op.Shape(pooled, start=2), constant(op, [1] * rank))
        span = op.Add(op.Mul(last, constant(op, strides)), constant(op, [1] * rank))
        axes, steps = constant(op, list(range(2, 2 + rank))), constant(op, strides)
        best = best_position = None
        for offset in itertools.product(*map(range, kernel)):
            start = constant(op, [o * gap for o, gap in zip(offset, gaps, strict=True)])
            one, at = (op.Slice(v, start, op.Add(start, span), axes, steps) for v in (x, position))
            if best is None:
                best, best_position = one, at
                continue
            wins = op.Greater(one, best)
            if outside:
                wins = op.Or(wins, op.Less(best_position, constant(op, 0)))
            best, best_position = op.Where(wins, one, best), op.Where(wins, at, best_position)
        # ONNX's indices count over the flattened tensor, including batch and channels.
        count = op.ReduceProd(op.Shape(x, end=2), keepdims=0)
        shape = op.Concat(op.Shape(x, end=2), constant(op, [1] * rank), axis=0)
        first = op.Reshape(op.Mul(_range(op, count), area), shape)
        return pooled, op.Add(first, best_position)


def _range(op: Any, count: Any) -> Any:
    return op.Range(constant(op, 0), count, constant(op, 1))


RULES = (MaxPoolIndices,)
