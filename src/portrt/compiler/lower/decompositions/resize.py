"""Antialiased resizing by scale factors, to corners, or to one pixel; torch.onnx knows none.

A dimension that keeps its size stays as it is, as in PyTorch. The output is rows @ image @ columns,
with a matrix of filter weights for each dimension.
Source: torch's upsample kernels, ATen/native/cpu/UpSampleKernel.cpp (compute_index_ranges_weights).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

aten = torch.ops.aten
Tensor = torch.Tensor
Filter = Callable[[Tensor], Tensor]


def _triangle(x: Tensor) -> Tensor:
    return (1 - x.abs()).clamp(min=0)


def _cubic(x: Tensor) -> Tensor:
    """Evaluate Keys' cubic kernel with a = -1/2."""
    x = x.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def _weights(x: Tensor, size: int, out: int, scale: float, kernel: Filter, width: int) -> Tensor:
    """Make the matrix [out, size] of filter weights; its rows sum to 1."""
    stretch = max(scale, 1.0)
    support = width / 2 * stretch
    centre = (torch.arange(out, device=x.device, dtype=torch.float32) + 0.5) * scale
    first = torch.floor(centre - support + 0.5).clamp(min=0).unsqueeze(1)
    last = torch.floor(centre + support + 0.5).clamp(max=size).unsqueeze(1)
    position = torch.arange(size, device=x.device, dtype=torch.float32)
    weight = kernel((position - centre.unsqueeze(1) + 0.5) / stretch)
    weight = torch.where((position >= first) & (position < last), weight, torch.zeros_like(weight))
    return (weight / weight.sum(1, keepdim=True)).to(x.dtype)


def _resized(
    x: Tensor,
    factors: Sequence[float | None] | None,
    sizes: Any,
    kernel: Filter,
    width: int,
    *,
    corners: bool,
) -> Any:
    given: list[Any] = list(x.shape[-2:])
    known = [factor for factor in factors or () if factor is not None]
    if not corners and len(known) != 2 and 1 not in list(sizes):
        return NotImplemented
    out = list(sizes or [int(size * factor) for size, factor in zip(given, known, strict=True)])
    if any(isinstance(size, torch.SymInt) for size in (*given, *out)):
        return NotImplemented
    matrices: list[Tensor | None] = []
    for index, (size, to) in enumerate(zip(given, out, strict=True)):
        if corners:
            scale = (size - 1) / (to - 1) if to > 1 else 0.0
        else:
            scale = 1 / known[index] if known else size / to
        same = size == to
        matrices.append(None if same else _weights(x, size, to, scale, kernel, width))
    rows, columns = matrices
    if columns is not None:
        x = torch.matmul(x, columns.transpose(0, 1))
    if rows is not None:
        x = torch.matmul(rows, x)
    return torch.clone(x) if rows is None and columns is None else x


def _by_vector(op: Any, kernel: Filter, width: int) -> Callable[..., Any]:
    def resized(x: Tensor, sizes: Any, align_corners: bool, factors: Sequence[float] | None) -> Any:
        found = _resized(x, factors, sizes, kernel, width, corners=align_corners)
        if found is not NotImplemented:
            return found
        high, wide = factors or (None, None)
        to_int: Any = torch.sym_int
        out = sizes or [to_int(n * f) for n, f in zip(x.shape[-2:], factors or (), strict=True)]
        return op(x, out, align_corners, high, wide)

    return resized


def _by_two_factors(kernel: Filter, width: int) -> Callable[..., Any]:
    def resized(
        x: Tensor,
        sizes: Any,
        align_corners: bool,
        high: float | None = None,
        wide: float | None = None,
    ) -> Any:
        return _resized(x, [high, wide], sizes, kernel, width, corners=align_corners)

    return resized


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    aten._upsample_bilinear2d_aa.vec: _by_vector(
        aten._upsample_bilinear2d_aa.default, _triangle, 2
    ),
    aten._upsample_bilinear2d_aa.default: _by_two_factors(_triangle, 2),
    aten._upsample_bicubic2d_aa.vec: _by_vector(aten._upsample_bicubic2d_aa.default, _cubic, 4),
    aten._upsample_bicubic2d_aa.default: _by_two_factors(_cubic, 4),
}
