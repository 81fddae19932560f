"""Allocation of contiguous tensors, faster than `torch.empty`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch

from portrt import torch_internals


def empty_on(device: torch.device) -> Callable[[Sequence[int], torch.dtype], torch.Tensor]:
    """Return a function (shape, dtype) -> new contiguous tensor on the current GPU of a type.

    It takes a third of the time of `torch.empty`.
    """
    empty_strided = torch_internals.empty_strided_on(device.type)

    def empty(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        sizes, strides = contiguous(tuple(shape))
        return empty_strided(sizes, strides, dtype)

    return empty


@lru_cache(maxsize=4096)
def contiguous(sizes: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the sizes, and the strides of a contiguous tensor of these sizes."""
    strides, step = [], 1
    for size in reversed(sizes):
        strides.append(step)
        step *= max(size, 1)
    return sizes, tuple(reversed(strides))
