"""Col2Im, the sum of overlapping patches (torch's fold), as a sum of shifted tensors.

One dimension of the image after the other: the values at one position of all patches are spaced by
the stride, shifted by the position, and added. Only data movement and sums, so that infinities stay
exact; a transposed convolution with an identity would turn them into NaN.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from portrt.compiler.backends.tensorrt.rewrites.rule import Rule, constant, node_of, numbers

# Limit of the sum of a patch's sizes; each position along a dimension becomes two nodes.
_MAX_POSITIONS = 64


class Fold(Rule):
    refusal = "operator: Col2Im (checkCol2Im): UNSUPPORTED_NODE"

    def pattern(self, op: Any, columns: Any, image_shape: Any, patch_shape: Any) -> Any:
        return op.Col2Im(columns, image_shape, patch_shape, _outputs=["image"])

    def check(self, _: Any, image_shape: ir.Value, patch_shape: ir.Value, **__: Any) -> bool:
        if image_shape.const_value is None or patch_shape.const_value is None:
            return False
        return sum(_sizes(patch_shape)) <= _MAX_POSITIONS

    def rewrite(
        self,
        op: Any,
        columns: ir.Value,
        image_shape: ir.Value,
        patch_shape: ir.Value,
        image: ir.Value,
    ) -> Any:
        sizes, patch, node = _sizes(image_shape), _sizes(patch_shape), node_of(image)
        rank = len(patch)
        strides = numbers(node, "strides", [1] * rank)
        gaps = numbers(node, "dilations", [1] * rank)
        pads = numbers(node, "pads", [0] * 2 * rank)
        reach = [gap * (positions - 1) for gap, positions in zip(gaps, patch, strict=True)]
        counts = [
            (sizes[i] + pads[i] + pads[i + rank] - reach[i] - 1) // strides[i] + 1
            for i in range(rank)
        ]
        # [batch, channels, *patch, *counts]; a 0 leaves the size as it is
        found = op.Reshape(columns, constant(op, [0, -1, *patch, *counts]))
        for i in reversed(range(rank)):
            length = counts[i] * strides[i]
            if strides[i] > 1:
                apart = op.Unsqueeze(found, constant(op, [4 + 2 * i]))
                filled = _pad(op, apart, 4 + 2 * i, 4 + i + rank, 0, strides[i] - 1)
                shape = [0, 0, *patch[: i + 1], *counts[:i], length, *sizes[i + 1 :]]
                found = op.Reshape(filled, constant(op, shape))
            axis, dims = 2 + 2 * i, 2 + i + rank  # after Gather of the position in the patch
            extent = max(length + reach[i], pads[i] + sizes[i])
            shifted = []
            for position in range(patch[i]):
                part = op.Gather(found, constant(op, position), axis=2 + i)
                before = position * gaps[i]
                shifted.append(_pad(op, part, axis, dims, before, extent - length - before))
            total = op.Sum(*shifted) if len(shifted) > 1 else shifted[0]
            ends = [pads[i], pads[i] + sizes[i], axis]
            found = op.Slice(total, *(constant(op, [end]) for end in ends))
        return found


def _sizes(value: ir.Value) -> list[int]:
    assert value.const_value is not None
    return [int(size) for size in value.const_value.numpy()]


def _pad(op: Any, x: Any, axis: int, dims: int, before: int, after: int) -> Any:
    """Pad one axis of a tensor of rank `dims` with zeros."""
    pads = [0] * 2 * dims
    pads[axis], pads[dims + axis] = before, after
    return op.Pad(x, constant(op, pads)) if before or after else x


RULES = (Fold,)
