"""Memory of torch's allocator, for what an engine writes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch

from portrt import torch_internals

ALIGNMENT = 256  # bytes, of every address that TensorRT is given
# Activations up to this size lie in memory that is kept for the small engines of a stream, which
# run one after the other; to ask torch for it each time would take a tenth of their call.
SMALL_BYTES = 1 << 20


class Memory:
    """Memory of one device, which must be the current one when it is asked for.

    Args:
        device: With its index.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._empty_strided = torch_internals.empty_strided_on(device.type)

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """`torch.empty`, in a third of its time.

        Raises:
            torch.OutOfMemoryError: There is too little.
        """
        sizes, strides = _contiguous(tuple(shape))
        return self._empty_strided(sizes, strides, dtype)

    def small(self, stream: int) -> int:
        """Address of the `SMALL_BYTES` that all small engines share on a stream."""
        key = (self._device, stream)
        made = _small.get(key)
        if made is None:
            made = _small.setdefault(key, self.empty((SMALL_BYTES,), torch.uint8))
        return made.data_ptr()

    def nothing(self) -> torch.Tensor:
        """A tensor without meaning."""
        made = _nothing.get(self._device)
        if made is None:
            made = _nothing.setdefault(self._device, self.empty((ALIGNMENT,), torch.uint8))
        return made

    def nowhere(self) -> int:
        """An address for tensors without elements: TensorRT wants one, torch has none."""
        return self.nothing().data_ptr()


_small: dict[tuple[torch.device, int], torch.Tensor] = {}
_nothing: dict[torch.device, torch.Tensor] = {}


@lru_cache(maxsize=4096)
def _contiguous(sizes: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Sizes, and the strides of a contiguous tensor of them."""
    strides, step = [], 1
    for size in reversed(sizes):
        strides.append(step)
        step *= max(size, 1)
    return sizes, tuple(reversed(strides))
