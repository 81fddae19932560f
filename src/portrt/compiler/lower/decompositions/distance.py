"""Distances between rows, for which torch.onnx has no translation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

aten = torch.ops.aten

# With more rows than this PyTorch computes Euclidean distances by a matrix product, unless
# compute_mode forbids it.
_MANY_ROWS = 25


def _cdist(x: torch.Tensor, y: torch.Tensor, p: float, compute_mode: int | None) -> torch.Tensor:
    many = any(isinstance(t.shape[-2], int) and t.shape[-2] > _MANY_ROWS for t in (x, y))
    if p == 2 and (compute_mode == 1 or (compute_mode in (None, 0) and many)):
        return _euclidean_by_product(x, y)
    difference = x.unsqueeze(-2) - y.unsqueeze(-3)
    if p == math.inf:  # PyTorch's comparison with NaN is false
        difference = torch.where(difference.isnan(), 0.0, difference)
    return _norm(difference, p)


def _euclidean_by_product(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Compute sqrt(|x|^2 - 2 x y + |y|^2) as one matrix product, in PyTorch's order of terms."""
    x_square, y_square = (t.pow(2).sum(-1, keepdim=True) for t in (x, y))
    left = torch.cat([x * -2, x_square, torch.ones_like(x_square)], -1)
    right = torch.cat([y, torch.ones_like(y_square), y_square], -1)
    return torch.matmul(left, right.transpose(-2, -1)).clamp(min=0).sqrt()


def _pdist(x: torch.Tensor, p: float = 2.0) -> Any:
    """Compute the distances of pairs i < j in PyTorch's order.

    The pair of each output is computed from its position by integer arithmetic: a square root would
    need float64, which not every engine has.
    """
    rows = x.shape[0]
    if isinstance(rows, int) and rows < 2:
        return x.new_zeros(0)
    position = torch.arange(rows * (rows - 1) // 2, device=x.device)
    # Rows that have a pair, without the first, which begins at 0; a slice takes any number of rows.
    row = torch.arange(rows, device=x.device)[1:-1]
    begins = torch.zeros_like(position).scatter(0, _begin(row, rows), torch.ones_like(row))
    first = torch.cumsum(begins, 0)
    second = position - _begin(first, rows) + first + 1
    one, other = (aten.index_select(x, 0, index) for index in (first, second))
    return _norm(one - other, p)


def _begin(row: torch.Tensor, rows: int) -> torch.Tensor:
    """Return the position of the first pair of each row."""
    return torch.div(row * (2 * rows - 1 - row), 2, rounding_mode="floor")


def _norm(difference: torch.Tensor, p: float) -> torch.Tensor:
    """Compute the p-norm over the last dimension."""
    if p == 0:
        return difference.abs().ceil().clamp(max=1.0).sum(-1)  # NaN stays NaN
    if p == 1:
        return difference.abs().sum(-1)
    if p == 2:
        return difference.pow(2).sum(-1).sqrt()
    if p == math.inf:
        size = difference.shape[-1]
        if type(size) is not int or size == 0:  # of no elements it is 0
            difference = torch.nn.functional.pad(difference, (0, 1))
        return difference.abs().amax(-1)
    return difference.abs().pow(p).sum(-1).pow(1 / p)


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    aten._cdist_forward.default: _cdist,
    aten._pdist_forward.default: _pdist,
}
