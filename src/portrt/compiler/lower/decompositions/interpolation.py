"""Resizing by scale factors where ONNX Runtime's Resize, or torch's decomposition, differs.

PyTorch steps through the image by 1/factor, where the output may have the input's size. Then Resize
copies the image; PyTorch does so in its linear modes, for each dimension, and for the nearest pixel
in 2-D where the output is small. The nearest pixel also differs where position * (1 / factor) and
position / factor are on different sides of an integer. Calls for which both agree stay whole.
Seen in torch 2.13 and ONNX Runtime 1.32.

Source: torch's upsample kernels, ATen/native/cpu/UpSampleKernel.cpp and ATen/native/UpSample.h.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from portrt import torch_internals

aten = torch.ops.aten
Tensor = torch.Tensor

# Height and width of the output at most, together, for PyTorch's other kernel for 2-D.
_SMALL = 128
# Positions for which a dynamic size is compared.
_COMPARED = 1 << 16


def _sizes(x: Tensor, sizes: Any, factors: Sequence[float]) -> list[Any]:
    to_int: Any = torch.sym_int
    return list(sizes or [to_int(n * f) for n, f in zip(x.shape[2:], factors, strict=True)])


def _may_be(times: int, size: Any, out: Any, factor: float) -> bool:
    """Return whether an output may have 1 or 2 times the input's size, for a factor that is not."""
    if type(size) is int and type(out) is int:
        return out == times * size and factor != times
    if not times < factor < times + 1:
        return False
    if type(size) is int:
        return True
    # A range from 2 on may have been widened to 1.
    ranges = torch_internals.traced_ranges(size)
    low = torch_internals.bounds(torch_internals.expression_of(size), ranges).lower
    return (1 if low <= 2 else int(low)) * (factor - times) < 1


def _is(times: int, size: Any, out: Any, x: Tensor) -> Tensor:
    """Return whether an output has a multiple of the input's size, as a tensor."""
    zero = torch.zeros((), dtype=torch.int64, device=x.device)
    return torch.eq(zero + out, zero + times * size)


def _positions(x: Tensor, out: Any) -> Tensor:
    return torch.arange(out, device=x.device, dtype=torch.int64)


def _linear(x: Tensor, axis: int, size: Any, out: Any, factor: float) -> Tensor:
    """Resize one dimension; where it keeps its size, it stays as it is."""
    scale = torch.full((), 1 / factor, dtype=torch.float32, device=x.device)
    scale = torch.where(_is(1, size, out, x), torch.ones_like(scale), scale)
    place = ((_positions(x, out).to(torch.float32) + 0.5) * scale - 0.5).clamp(min=0)
    first = place.to(torch.int64).clamp(max=size - 1)
    share = (place - first.to(torch.float32)).clamp(0, 1)
    return _mixed(x, axis, size, first, [1 - share, share], 0)


def _cubic(x: Tensor, axis: int, size: Any, out: Any, factor: float) -> Tensor:
    """Resize one dimension with Keys' cubic kernel, a = -3/4."""
    place = (_positions(x, out).to(torch.float32) + 0.5) * (1 / factor) - 0.5
    first = torch.floor(place)
    t = place - first
    weights = []
    for distance in (t + 1, t, 1 - t, 2 - t):
        near = (1.25 * distance - 2.25) * distance * distance + 1
        far = ((-0.75 * distance + 3.75) * distance - 6) * distance + 3
        weights.append(torch.where(distance <= 1, near, far))
    return _mixed(x, axis, size, first.to(torch.int64), weights, 1)


def _mixed(
    x: Tensor, axis: int, size: Any, first: Tensor, weights: Sequence[Tensor], before: int
) -> Tensor:
    """Add weighted elements, from `before` ahead of the first one on."""
    terms: list[Tensor] = []
    for index, weight in enumerate(weights):
        place = (first + (index - before)).clamp(min=0).clamp(max=size - 1)
        shape = [-1] + [1] * (x.dim() - axis - 1)
        terms.append(torch.index_select(x, axis, place) * weight.reshape(shape).to(x.dtype))
    return functools.reduce(torch.add, terms)


def _by_dimension(one: Callable[..., Tensor], x: Tensor, sizes: Any, factors: Any) -> Tensor:
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    for index, (out, factor) in enumerate(zip(sizes, factors, strict=True)):
        wide = one(wide, 2 + index, x.shape[2 + index], out, factor)
    found: Tensor = wide.to(x.dtype)
    return found


def _linear_modes(x: Tensor, sizes: list[Any], factors: Sequence[float], again: Any) -> Any:
    dims = list(zip(x.shape[2:], sizes, factors, strict=True))
    if not any(_may_be(1, *dim) for dim in dims):
        return NotImplemented
    if any(type(size) is not int or type(out) is not int for size, out, _ in dims):
        return _by_dimension(_linear, x, sizes, factors)
    if all(size == out for size, out, _ in dims):
        return torch.clone(x)
    return again([1.0 if size == out else factor for size, out, factor in dims])


def _bicubic(x: Tensor, sizes: list[Any], factors: Sequence[float], _: Any) -> Any:
    dims = list(zip(x.shape[2:], sizes, factors, strict=True))
    static = [type(size) is int and type(out) is int for size, out, _ in dims]
    same = [
        size == out if fixed else factor == 1 or _may_be(1, size, out, factor)
        for fixed, (size, out, factor) in zip(static, dims, strict=True)
    ]
    if not all(same) or all(factor == 1 for factor in factors):
        return NotImplemented
    return _by_dimension(_cubic, x, sizes, factors)


def _nearest_modes(x: Tensor, sizes: list[Any], factors: Sequence[float], _: Any) -> Any:
    dims = list(zip(x.shape[2:], sizes, factors, strict=True))
    can_be_small = len(dims) == 2
    fixed = all(type(size) is int and type(out) is int for size, out, _ in dims)
    if fixed:
        can_be_small = can_be_small and sum(sizes) <= _SMALL
        is_copied = all(size == out for size, out, _ in dims)
    else:
        is_copied = any(_may_be(1, *dim) for dim in dims)
    if can_be_small:
        differs = any(_may_be(2, *dim) for dim in dims)
        differs = differs or (is_copied and not fixed)
        differs = differs or (fixed and not is_copied and any(_may_be(1, *dim) for dim in dims))
    else:
        differs = is_copied and any(factor != 1 for factor in factors)
    if not differs and all(_agrees(out, factor) for _, out, factor in dims):
        return NotImplemented
    small: Any = None
    if len(dims) == 2:
        zero = torch.zeros((), dtype=torch.int64, device=x.device)
        small = torch.le(zero + (sizes[0] + sizes[1]), zero + _SMALL)
    for index, (size, out, factor) in enumerate(dims):
        at = _positions(x, out)
        place = torch.floor(at.to(torch.float32) * _single(1 / factor)).to(torch.int64)
        place = place.clamp(max=size - 1)
        if small is not None:
            place = torch.where(small & _is(1, size, out, x), at, place)
            half = torch.div(at, 2, rounding_mode="floor")
            place = torch.where(small & _is(2, size, out, x), half, place)
        x = torch.index_select(x, 2 + index, place)
    return x


def _agrees(out: Any, factor: float) -> bool:
    """Return whether a product and a quotient, in float32, are of the same pixels."""
    at = np.arange(out if type(out) is int else _COMPARED, dtype=np.float32)
    product = np.floor(at * np.float32(1 / factor))
    return bool(np.array_equal(product, np.floor(at / np.float32(factor))))


def _single(number: float) -> float:
    """Round a number to float32."""
    return float(np.float32(number))


def _are_numbers(factors: Sequence[Any]) -> bool:
    return all(type(factor) in (int, float) for factor in factors)


def _by_vector(op: Any, resize: Callable[..., Any], *, has_corners: bool) -> Callable[..., Any]:
    """Decompose the overload that takes all factors in one list."""

    def resized(x: Tensor, sizes: Any, *rest: Any) -> Any:
        factors = rest[-1]
        if not factors or not _are_numbers(factors) or (has_corners and rest[0]):
            return NotImplemented
        return resize(
            x, _sizes(x, sizes, factors), factors, lambda other: op(x, sizes, *rest[:-1], other)
        )

    return resized


def _by_factors(op: Any, resize: Callable[..., Any], *, has_corners: bool) -> Callable[..., Any]:
    """Decompose the overload that takes factor by factor."""

    def resized(x: Tensor, sizes: Any, *rest: Any) -> Any:
        start = 1 if has_corners else 0
        factors = rest[start:]
        if len(factors) != len(sizes) or not _are_numbers(factors) or (has_corners and rest[0]):
            return NotImplemented
        return resize(x, list(sizes), factors, lambda other: op(x, sizes, *rest[:start], *other))

    return resized


def _sequence(x: Tensor, sizes: Any, align_corners: bool, factor: Any = None) -> Tensor:
    """Resize an image of one row: torch's decomposition always steps by 1/factor."""
    factor = factor[0] if isinstance(factor, (list, tuple)) else factor
    image = torch.unsqueeze(x, 2)
    if sizes is None:
        found = aten.upsample_bilinear2d.vec(image, None, align_corners, [1.0, factor])
    else:
        scales = (None, None) if factor is None else (1.0, factor)
        found = aten.upsample_bilinear2d.default(image, [1, *sizes], align_corners, *scales)
    return torch.squeeze(found, 2)


def _rows(names: Sequence[str], resize: Any, *, has_corners: bool) -> dict[Any, Any]:
    found = {}
    for name in names:
        packet = getattr(aten, name)
        found[packet.vec] = _by_vector(packet.vec, resize, has_corners=has_corners)
        found[packet.default] = _by_factors(packet.default, resize, has_corners=has_corners)
    return found


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    aten.upsample_linear1d.vec: _sequence,
    aten.upsample_linear1d.default: _sequence,
    **_rows(["upsample_bilinear2d", "upsample_trilinear3d"], _linear_modes, has_corners=True),
    **_rows(["upsample_bicubic2d"], _bicubic, has_corners=True),
    **_rows(
        ["upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d"],
        _nearest_modes,
        has_corners=False,
    ),
}
