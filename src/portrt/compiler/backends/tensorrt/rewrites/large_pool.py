"""Pools with windows that are too large for TensorRT, or larger than the input.

A pool is one of each dimension after the other: the parts of a window are counted by dimension, as
PyTorch does. A dimension with one window is a mean or a maximum of that window. This is also
written for windows that reach beyond the padding, as `AvgPool2d(320, ceil_mode=True)` at the end of
a network has: what lies beyond is in no count, whatever a library counts as padding.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import onnx_ir as ir

from portrt.compiler.backends.tensorrt.rewrites.rule import (
    Rule,
    constant,
    is_used,
    node_of,
    numbers,
)

# TensorRT 10 and TensorRT-RTX 1 take windows of fewer elements.
_MAX_ELEMENTS = 100_000
_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


@dataclasses.dataclass(frozen=True)
class _Window:
    """The windows of one dimension.

    Attributes:
        axis: The dimension.
        size: Its size, or the largest one if that is dynamic.
        is_fixed: Whether it is not dynamic.
        kernel, stride, before, after, gap: As in the pool.
        rounds_up: Whether the pool has ceil_mode.
    """

    axis: int
    size: int
    is_fixed: bool
    kernel: int
    stride: int
    before: int
    after: int
    gap: int
    rounds_up: bool

    @property
    def excess(self) -> int:
        """Return how much longer than the window the padded input is at most."""
        return self.size + self.before + self.after - self.kernel

    @property
    def is_one(self) -> bool:
        """Return whether each size of the dimension has one window, of contiguous elements."""
        if self.kernel > 1 and self.gap > 1:
            return False
        if not self.rounds_up:
            return self.excess < self.stride
        starts_inside = self.stride < self.size + self.before
        return self.excess <= (0 if starts_inside else self.stride)

    @property
    def padding_in_count(self) -> int | None:
        """Return how many elements of padding the one window counts; None if that depends."""
        if not self.before and not self.after:
            return 0
        if not self.is_fixed:
            return None
        last = min(self.kernel - self.before, self.size + self.after)
        return self.before + last - min(last, self.size)


class _LargePool(Rule):
    refusal = "volume(windowSize) < maxKernelDimsProduct"
    operator: ClassVar[str]
    reduction: ClassVar[str]

    def pattern(self, op: Any, x: Any) -> Any:
        return getattr(op, self.operator)(x, _outputs=["found"])

    def check(self, _: Any, x: ir.Value, found: ir.Value) -> bool:
        node = node_of(found)
        windows = self._windows(x, node)
        if windows is None or any(is_used(other) for other in node.outputs[1:]):
            return False
        area = math.prod(window.kernel for window in windows)
        is_beyond = any(window.is_one and window.excess < 0 for window in windows)
        return (area >= _MAX_ELEMENTS or is_beyond) and all(
            self._is_taken(window, node) for window in windows
        )

    def rewrite(self, op: Any, x: ir.Value, found: ir.Value) -> Any:
        node = node_of(found)
        windows = self._windows(x, node)
        assert windows is not None
        whole = [window for window in windows if window.is_one]
        counted = math.prod(self._count(window, node) for window in whole)
        for window in windows:
            if window.is_one:
                x = _first_window(op, x, window)
            else:
                x = getattr(op, self.operator)(x, **self._of_one(node, window))
        if whole:
            axes = constant(op, [window.axis for window in whole])
            x = getattr(op, self.reduction)(x, axes, keepdims=1)
        if counted != 1:
            x = op.Mul(x, constant(op, counted, found.dtype))
        return op.Identity(x)

    def _windows(self, x: ir.Value, node: ir.Node) -> list[_Window] | None:
        given = node.attributes
        if x.dtype not in _FLOATS or x.shape is None:
            return None
        if "auto_pad" in given and given["auto_pad"].as_string() != "NOTSET":
            return None
        kernel = list(given["kernel_shape"].as_ints())
        rank = len(kernel)
        sizes = self.bounds(x.shape)
        if sizes is None or len(sizes) != rank + 2:
            return None
        strides = numbers(node, "strides", [1] * rank)
        pads = numbers(node, "pads", [0] * 2 * rank)
        gaps = numbers(node, "dilations", [1] * rank)
        ceil = given.get("ceil_mode")
        return [
            _Window(
                axis=2 + i,
                size=sizes[2 + i],
                is_fixed=isinstance(x.shape[2 + i], int),
                kernel=kernel[i],
                stride=strides[i],
                before=pads[i],
                after=pads[rank + i],
                gap=gaps[i],
                rounds_up=ceil is not None and ceil.as_int() != 0,
            )
            for i in range(rank)
        ]

    def _is_taken(self, window: _Window, node: ir.Node) -> bool:
        if window.is_one:
            return not self._counts_padding(node) or window.padding_in_count is not None
        return window.kernel < _MAX_ELEMENTS

    def _counts_padding(self, node: ir.Node) -> bool:
        given = node.attributes.get("count_include_pad")
        return given is not None and given.as_int() != 0

    def _count(self, window: _Window, node: ir.Node) -> float:
        """Return the share of the one window's elements that are no padding."""
        padding = window.padding_in_count if self._counts_padding(node) else 0
        if not padding:
            return 1
        inside = min(window.kernel - window.before, window.size)
        return inside / (inside + padding)

    def _of_one(self, node: ir.Node, window: _Window) -> dict[str, Any]:
        """Return the attributes of the pool along one dimension."""
        rank = len(node.attributes["kernel_shape"].as_ints())

        def along(value: int, instead: int) -> list[int]:
            return [value if 2 + i == window.axis else instead for i in range(rank)]

        kept = ("ceil_mode", "count_include_pad")
        return {
            "kernel_shape": along(window.kernel, 1),
            "strides": along(window.stride, 1),
            "pads": along(window.before, 0) + along(window.after, 0),
            "dilations": along(window.gap, 1),
            **{name: node.attributes[name] for name in kept if name in node.attributes},
        }


def _first_window(op: Any, x: Any, window: _Window) -> Any:
    """Return the elements of the first window that are no padding."""
    end = window.kernel - window.before
    if window.size <= end:
        return x
    return op.Slice(x, *(constant(op, [bound]) for bound in (0, end, window.axis)))


class LargeAveragePool(_LargePool):
    operator = "AveragePool"
    reduction = "ReduceMean"


class LargeMaxPool(_LargePool):
    operator = "MaxPool"
    reduction = "ReduceMax"


RULES = (LargeAveragePool, LargeMaxPool)
