"""Pooling where ONNX's differs, and the gradient of average pooling.

Gradients are products with one matrix per dimension: rows @ gradient @ columns, where a column of
a matrix has 1/n at the n positions of its window.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

aten = torch.ops.aten
Tensor = torch.Tensor


def _pair(value: Sequence[int], instead: Sequence[int]) -> tuple[int, int]:
    value = value or instead
    return (value[0], value[0]) if len(value) == 1 else (value[0], value[1])


def _avg_pool(pool: Callable[..., Tensor], rank: int) -> Callable[..., Any]:
    """Apply `divisor_override`, which torch.onnx ignores."""

    def pooled(
        x: Tensor,
        kernel_size: Sequence[int],
        stride: Sequence[int] = (),
        padding: Sequence[int] = (0,),
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> Any:
        if divisor_override is None or not x.dtype.is_floating_point:
            return NotImplemented
        # With ceil_mode the last window may exceed the padded input; PyTorch counts less then.
        extra = list(kernel_size) * (rank if len(kernel_size) == 1 else 1) if ceil_mode else []
        pads = list(padding) * (rank if len(padding) == 1 else 1)
        sizes = [[left, left + (extra[i] if extra else 0)] for i, left in enumerate(pads)]
        flat = [side for pair in reversed(sizes) for side in pair]
        area = torch.Size(kernel_size).numel() ** (rank if len(kernel_size) == 1 else 1)
        summed = pool(aten.constant_pad_nd(x, flat), kernel_size, stride) * area
        if ceil_mode:
            like = pool(x, kernel_size, stride, padding, True)
            for axis in range(-rank, 0):
                summed = summed.narrow(axis, 0, like.shape[axis])
        return summed / divisor_override

    return pooled


def _windows(size: Any, first: Tensor, last: Tensor, length: Tensor, x: Tensor) -> Tensor:
    """Make a matrix [windows, size] with 1/length from first to last of each window."""
    position = torch.arange(size, device=x.device)
    inside = (position >= first.unsqueeze(1)) & (position < last.unsqueeze(1))
    return inside.to(x.dtype) / length.unsqueeze(1).to(x.dtype)


def _adaptive(rank: int) -> Callable[..., Tensor]:
    """Compute adaptive average pooling by means of windows.

    torch.onnx translates it only if input sizes are multiples of output sizes, and not in 3-D.
    """

    def pooled(x: Tensor, output_size: Sequence[int]) -> Tensor:
        axes = range(-rank, 0)
        if all(size == 1 for size in output_size):
            return x.mean(list(axes), keepdim=True)
        for axis, windows in zip(axes, output_size, strict=True):
            if type(x.shape[axis]) is int and x.shape[axis] == windows:
                continue
            x = _window_means(x, axis, windows)
        return x

    return pooled


def _adaptive_max(rank: int) -> Callable[..., Any]:
    """Compute adaptive max pooling of one window, and of sizes that are multiples of the windows.

    torch's own form adds a guard that dynamic sizes are multiples, which narrows their ranges.
    """
    pool = aten.max_pool2d_with_indices if rank == 2 else aten.max_pool3d_with_indices

    def pooled(x: Tensor, output_size: Sequence[int]) -> Any:
        sizes = x.shape[-rank:]
        if all(type(windows) is int and windows == 1 for windows in output_size):
            places = x.flatten(-rank).argmax(-1, keepdim=True)
            for _ in range(rank - 1):
                places = places.unsqueeze(-1)
            return x.amax(list(range(-rank, 0)), True), places
        if not all(type(size) is int for size in (*sizes, *output_size)):
            return NotImplemented
        pairs = list(zip(sizes, output_size, strict=True))
        if not all(windows > 0 and size % windows == 0 for size, windows in pairs):
            return NotImplemented
        return pool(x, [size // windows for size, windows in pairs])

    return pooled


def _window_means(x: Tensor, axis: int, windows: Any) -> Tensor:
    """Average the windows of one dimension.

    Elements of other windows are selected away, not multiplied by 0, which is NaN for infinities.

    Args:
        x: The image.
        axis: The dimension, counted from the end.
        windows: Their number.
    """
    size, dtype = x.shape[axis], x.dtype
    if dtype in (torch.float16, torch.bfloat16):
        x = x.float()
    if type(size) is int and type(windows) is int and size % windows == 0:
        return _unflattened(x, axis, (windows, size // windows)).mean(axis).to(dtype)
    first, last = _bounds(size, windows, x)
    longest = (size + windows - 1) // windows + 1
    position = first.unsqueeze(1) + torch.arange(longest, device=x.device)
    taken = x.index_select(axis, position.clamp(max=size - 1).reshape(-1))
    taken = _unflattened(taken, axis, (windows, longest))
    inside = (position < last.unsqueeze(1)).reshape(windows, longest, *[1] * (-axis - 1))
    count = (last - first).reshape(windows, *[1] * (-axis - 1))
    summed = torch.where(inside, taken, torch.zeros_like(taken)).sum(axis)
    return (summed / count.to(x.dtype)).to(dtype)


def _unflattened(x: Tensor, axis: int, sizes: Sequence[Any]) -> Tensor:
    made: Tensor = x.unflatten(axis, sizes)  # type: ignore[no-untyped-call]
    return made


def _bounds(size: Any, windows: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first position of each window, and the one after the last."""
    window = torch.arange(windows, device=x.device)
    first = torch.div(window * size, windows, rounding_mode="floor")
    last = torch.div((window + 1) * size + windows - 1, windows, rounding_mode="floor")
    return first, last


def _adaptive_windows(x: Tensor, size: Any, windows: Any) -> Tensor:
    first, last = _bounds(size, windows, x)
    return _windows(size, first, last, last - first, x)


def _adaptive_backward(grad: Tensor, x: Tensor) -> Tensor:
    """Multiply by the transposed matrices: torch.onnx has no translation for the operator."""
    matrices = [_adaptive_windows(grad, x.shape[axis], grad.shape[axis]) for axis in (-2, -1)]
    return torch.matmul(matrices[0].transpose(0, 1), torch.matmul(grad, matrices[1]))


def _avg_backward(
    grad: Tensor,
    x: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Tensor:
    """Multiply by the transposed matrices: torch.onnx has no translation for the operator."""
    kernel = _pair(kernel_size, ())
    steps, pads = _pair(stride, kernel), _pair(padding, (0, 0))
    matrices = []
    for axis, length, step, pad in zip((-2, -1), kernel, steps, pads, strict=True):
        size, windows = x.shape[axis], grad.shape[axis]
        start = torch.arange(windows, device=x.device) * step - pad
        end = (start + length).clamp(max=size + pad)
        first, last = start.clamp(min=0), end.clamp(max=size)
        count = end - start if count_include_pad else last - first
        count = torch.ones_like(count) if divisor_override else count
        matrices.append(_windows(size, first, last, count, grad))
    found = torch.matmul(matrices[0].transpose(0, 1), torch.matmul(grad, matrices[1]))
    return found / divisor_override if divisor_override else found


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    aten.avg_pool2d.default: _avg_pool(torch.nn.functional.avg_pool2d, 2),
    aten.avg_pool3d.default: _avg_pool(torch.nn.functional.avg_pool3d, 3),
    aten._adaptive_avg_pool2d.default: _adaptive(2),
    aten._adaptive_avg_pool3d.default: _adaptive(3),
    aten.adaptive_max_pool2d.default: _adaptive_max(2),
    aten.adaptive_max_pool3d.default: _adaptive_max(3),
    aten._adaptive_avg_pool2d_backward.default: _adaptive_backward,
    aten.avg_pool2d_backward.default: _avg_backward,
}
