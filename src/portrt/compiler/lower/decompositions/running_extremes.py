"""Running maxima and minima with their positions, for which torch.onnx has no translation."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch

from portrt.graphs.symbols import range_of

aten = torch.ops.aten
Tensor = torch.Tensor

# Doublings for a size without a bound.
_MOST = 31


def _running(beats: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Any]:
    """Return a decomposition that doubles the reach of each element until it is the whole row.

    Of equal elements the last one counts, and NaN beats every number, as in PyTorch. Elements
    before the reach are seen twice, which changes nothing.
    """

    def decomposed(x: Tensor, dim: int) -> Any:
        if x.dim() == 0:
            return x.clone(), torch.zeros_like(x, dtype=torch.int64)
        found = (x.to(torch.int32) if x.dtype == torch.bool else x).transpose(dim, -1)
        positions = torch.arange(x.shape[dim], device=x.device)
        places = positions.expand(found.shape)
        for step in range(_doublings(x.shape[dim])):
            before = (positions - 2**step).clamp(min=0)
            earlier = aten.index_select(found, -1, before)
            keeps = beats(found, earlier)
            if x.dtype.is_floating_point:
                keeps = keeps | (found != found)
            found = torch.where(keeps, found, earlier)
            places = torch.where(keeps, places, aten.index_select(places, -1, before))
        return found.to(x.dtype).transpose(dim, -1), places.transpose(dim, -1)

    return decomposed


def _doublings(size: Any) -> int:
    """Return how often a reach of 1 doubles until it is the largest size."""
    largest = size if isinstance(size, int) else range_of(size, {})[1]
    return _MOST if largest is None else min(max(largest - 1, 0).bit_length(), _MOST)


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    aten.cummax.default: _running(operator.ge),
    aten.cummin.default: _running(operator.le),
}
