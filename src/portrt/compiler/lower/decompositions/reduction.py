"""Reductions over all dimensions, of empty tensors, of bools, and with a dtype argument."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._decomp import get_decompositions

from portrt.graphs import symbols

aten = torch.ops.aten
Dims = Sequence[int] | None

_TORCH_DECOMPOSITIONS: dict[Any, Callable[..., Any]] = get_decompositions([aten.var.correction])


def _extreme(op: Callable[..., torch.Tensor]) -> Callable[..., Any]:
    """Name all dimensions: torch.onnx takes no empty list."""

    def reduced(x: torch.Tensor, dim: Sequence[int] = (), keepdim: bool = False) -> Any:
        if dim:
            return NotImplemented
        return op(x, list(range(x.dim())), keepdim) if x.dim() else x.clone()

    return reduced


def _any(x: torch.Tensor, dim: Dims = None, keepdim: bool = False) -> torch.Tensor:
    """Count true elements: torch.onnx writes a maximum, which is true for an empty tensor.

    Of uint8 the result is uint8; along no dimension it is that of each element.
    """
    dims = list(range(x.dim())) if dim is None else list(dim)
    counted = (x if x.dtype == torch.bool else x != 0).to(torch.int64)
    found = (counted.sum(dims, keepdim) if dims and x.dim() else counted) > 0
    return found.to(torch.uint8) if x.dtype == torch.uint8 else found


def _all_true(x: torch.Tensor) -> torch.Tensor:
    """Count false elements, for `_any`'s reason."""
    return x.logical_not().to(torch.int64).sum() == 0


def _any_of_one(x: torch.Tensor, dim: int, keepdim: bool = False) -> torch.Tensor:
    return _any(x, [dim], keepdim)


def _all(x: torch.Tensor, dim: Dims = None, keepdim: bool = False) -> Any:
    """Write calls that torch.onnx gets wrong: of uint8, and along no dimension."""
    if x.dtype != torch.uint8 and (dim is None or list(dim)):
        return NotImplemented
    found = _any(x == 0, dim, keepdim).logical_not()
    return found.to(torch.uint8) if x.dtype == torch.uint8 else found


def _all_of_one(x: torch.Tensor, dim: int, keepdim: bool = False) -> Any:
    return _all(x, [dim], keepdim)


def _position(op: Callable[..., torch.Tensor]) -> Callable[..., Any]:
    """Apply `keepdim` without a dimension, which torch.onnx ignores."""

    def found(x: torch.Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
        if dim is not None or not keepdim:
            return NotImplemented
        return op(x.reshape(-1), 0, True).reshape([1] * x.dim())

    return found


def _extreme_and_index(op: Callable[..., Any]) -> Callable[..., Any]:
    """Convert bools, which ONNX's ArgMax does not take, and handle 0-d tensors.

    For a 0-d tensor torch.onnx renames the graph input.
    """

    def found(x: torch.Tensor, dim: int, keepdim: bool = False) -> Any:
        if x.dim() == 0:
            return x.clone(), torch.zeros_like(x, dtype=torch.int64)
        if x.dtype != torch.bool:
            return NotImplemented
        values, positions = op(x.to(torch.int32), dim, keepdim)
        return values.to(torch.bool), positions

    return found


def _sort(x: torch.Tensor, dim: int = -1, descending: bool = False) -> Any:
    """Sort bools as integers: ONNX's TopK takes no bools."""
    if x.dtype != torch.bool:
        return NotImplemented
    values, positions = torch.sort(x.to(torch.int32), dim, descending)
    return values.to(torch.bool), positions


def _topk(
    x: torch.Tensor,
    k: int,
    dim: int = -1,
    largest: bool = True,
    sorted: bool = True,  # noqa: A002
) -> Any:
    """Handle 0-d tensors, which ONNX's TopK does not take."""
    if x.dim():
        return NotImplemented
    values, positions = torch.topk(x.reshape(1), k, 0, largest, sorted)
    return values.reshape(()), positions.reshape(())


def _mean(
    x: torch.Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> Any:
    """Cast to `dtype` before the division and name all dimensions, which torch.onnx does not."""
    if x.dim() == 0:
        return x.to(dtype or x.dtype).clone()
    if any(type(x.shape[axis]) is int and x.shape[axis] == 0 for axis in dim or ()):
        return aten.sum.dim_IntList(x, dim, keepdim, dtype=dtype) / 0  # NaN for an empty tensor
    dims = dim or range(x.dim())
    if any(symbols.unbacked_symbols([x.shape[axis]]) for axis in dims if x.dim()):
        return _mean_of_any(x.to(dtype or x.dtype), list(dims), keepdim)
    if dtype is not None and dtype != x.dtype:
        return aten.mean.dim(x.to(dtype), dim, keepdim)
    return aten.mean.dim(x, list(range(x.dim())), keepdim) if dim is None else NotImplemented


def _mean_of_all(x: torch.Tensor, *, dtype: torch.dtype | None = None) -> Any:
    if not symbols.unbacked_symbols(x.shape):
        return NotImplemented
    return _mean_of_any(x.to(dtype or x.dtype), list(range(x.dim())), False)


def _mean_of_any(x: torch.Tensor, dims: list[int], keepdim: bool) -> torch.Tensor:
    """Divide the sum by a data-dependent count: ONNX Runtime's mean of nothing is 0, not NaN."""
    wide = _accumulated_in(x.dtype)
    return (x.to(wide).sum(dims, keepdim) / _count(x, dims, wide)).to(x.dtype)


def _count(x: torch.Tensor, dims: list[int], dtype: torch.dtype) -> torch.Tensor:
    """Return the number of elements along dimensions, 0-d."""
    count: Any = 1
    for axis in dims:
        count = count * x.shape[axis]
    return torch.full((), count, dtype=dtype, device=x.device)


def _var(
    x: torch.Tensor, dim: Dims = None, *, correction: float | None = None, keepdim: bool = False
) -> Any:
    """Divide by no negative count, which PyTorch's decomposition does."""
    if not x.dim():  # torch.onnx takes no 0-d tensor
        return _var(x.reshape(1), [0], correction=correction)
    dims = list(dim or range(x.dim()))
    if _has_at_least([x.shape[axis] for axis in dims if x.dim()], correction):
        decompose = _TORCH_DECOMPOSITIONS[aten.var.correction]
        return decompose(x, dim, correction=correction, keepdim=keepdim)
    wide = _accumulated_in(x.dtype)
    centred = x.to(wide) - _mean_of_any(x.to(wide), dims, True)
    count = (_count(x, dims, wide) - (1 if correction is None else correction)).clamp(min=0)
    return ((centred * centred).sum(dims, keepdim) / count).to(x.dtype)


def _has_at_least(sizes: list[Any], count: float | None) -> bool:
    """Return whether there are so many elements in every call of an engine."""
    least = 1
    for size in sizes:
        if symbols.unbacked_symbols([size]):
            return False
        least *= symbols.smallest_in_engine(size)
    return least > 0 and (count is None or least >= count)


def _std(
    x: torch.Tensor, dim: Dims = None, *, correction: float | None = None, keepdim: bool = False
) -> Any:
    wide = x.to(_accumulated_in(x.dtype))
    return torch.sqrt(_var(wide, dim, correction=correction, keepdim=keepdim)).to(x.dtype)


def _with_mean(op: Callable[..., torch.Tensor]) -> Callable[..., Any]:
    """Return the result of `op` and the mean; PyTorch's decomposition does not call `_var`."""

    def both(
        x: torch.Tensor,
        dim: Dims = None,
        *,
        correction: float | None = None,
        keepdim: bool = False,
    ) -> Any:
        if x.dtype.is_complex:
            return NotImplemented
        wide = x.to(_accumulated_in(x.dtype))
        dims = list(dim or range(x.dim()))
        # A mean of ONNX Runtime in float64 is less exact.
        count = math.prod(x.shape[axis] for axis in dims) if x.dim() else 1
        mean = wide.sum(dims, keepdim) / count if x.dim() else wide.clone()
        return op(x, dim, correction=correction, keepdim=keepdim), mean.to(x.dtype)

    return both


def _accumulated_in(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def _prod(
    x: torch.Tensor, dim: int, keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> Any:
    """Handle 0-d tensors, of which ONNX reduces no dimension."""
    if x.dim():
        return NotImplemented
    return x.to(dtype or (x.dtype if x.dtype.is_floating_point else torch.int64)).clone()


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    aten._is_all_true.default: _all_true,
    aten._is_any_true.default: _any,
    aten.amax.default: _extreme(torch.amax),
    aten.amin.default: _extreme(torch.amin),
    aten.all.default: _all,
    aten.all.dim: _all_of_one,
    aten.all.dims: _all,
    aten.any.default: _any,
    aten.any.dim: _any_of_one,
    aten.any.dims: _any,
    aten.argmax.default: _position(torch.argmax),
    aten.argmin.default: _position(torch.argmin),
    aten.max.dim: _extreme_and_index(torch.max),
    aten.min.dim: _extreme_and_index(torch.min),
    aten.mean.default: _mean_of_all,
    aten.mean.dim: _mean,
    aten.prod.dim_int: _prod,
    aten.var.correction: _var,
    aten.std.correction: _std,
    aten.var_mean.correction: _with_mean(_var),
    aten.std_mean.correction: _with_mean(_std),
    aten.sort.default: _sort,
    aten.topk.default: _topk,
}
