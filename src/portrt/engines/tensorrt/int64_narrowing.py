"""Converts torch's int64 to the INT32 of an older engine, and detects overflow."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch

from portrt.engines.tensorrt.cuda_kernel import cuda_kernel
from portrt.engines.tensorrt.memory import Memory

_AT_ONCE = 4  # tensors in one launch
# One kernel converts and checks all inputs; torch's operators would be three launches for each
# input, of 2 us each.
_PARAMETERS = ", ".join(
    f"const long long* wide{i}, int* narrow{i}, long long count{i}" for i in range(_AT_ONCE)
)
_CHOICES = " ".join(
    f"if (blockIdx.y == {i}) {{ wide = wide{i}; narrow = narrow{i}; count = count{i}; }}"
    for i in range(_AT_ONCE)
)
_SOURCE = f"""
extern "C" __global__ void portrt_narrow({_PARAMETERS}, int* overflow) {{
  const long long* wide = 0; int* narrow = 0; long long count = 0;
  {_CHOICES}
  long long step = (long long)gridDim.x * blockDim.x;
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) {{
    long long value = wide[i];
    int small = (int)value;
    narrow[i] = small;
    if ((long long)small != value) *overflow = 1;
  }}
}}
"""
_THREADS, _MAX_BLOCKS = 256, 1024


class Narrower:
    """Converts on the stream of the call; the GPU sets an overflow flag in pinned CPU memory.

    Args:
        device: Device of the tensors.
        memory: Allocator of the device.
    """

    def __init__(self, device: torch.device, memory: Memory) -> None:
        self._device = device
        self._empty = memory.empty
        pinned = device.type == "cuda"  # the GPU can write pinned memory only
        self._overflow = torch.zeros(1, dtype=torch.int32, pin_memory=pinned)
        self._noted = ctypes.c_int.from_address(self._overflow.data_ptr())
        self._launch = cuda_kernel(_SOURCE, "portrt_narrow", device)

    @property
    def overflowed(self) -> bool:
        """Return whether a conversion since the last read had an overflow; reading resets it."""
        if not self._noted.value:
            return False
        self._noted.value = 0
        return True

    def __call__(
        self,
        wide: Sequence[torch.Tensor],
        stream: int,
        narrow: Sequence[torch.Tensor] | None = None,
    ) -> Sequence[torch.Tensor]:
        """Convert to int32.

        Args:
            wide: int64 tensors of any shapes and layouts.
            stream: Handle of the current stream.
            narrow: Contiguous int32 tensors of the same shapes to write to; None allocates them.

        Returns:
            The int32 tensors.
        """
        if narrow is None:
            narrow = [self._empty(tensor.shape, torch.int32) for tensor in wide]
        if self._launch is None:  # this torch has no NVRTC
            for source, target in zip(wide, narrow, strict=True):
                self._without_kernel(source, target)
            return narrow
        for first in range(0, len(wide), _AT_ONCE):
            sources = [tensor.contiguous() for tensor in wide[first : first + _AT_ONCE]]
            arguments: list[int] = []
            for source, target in zip(sources, narrow[first:], strict=False):
                arguments += (source.data_ptr(), target.data_ptr(), source.numel())
            longest = max(arguments[2::3])
            arguments += [0] * (3 * _AT_ONCE - len(arguments))
            blocks = min((longest + _THREADS - 1) // _THREADS, _MAX_BLOCKS)
            if blocks:
                arguments.append(self._overflow.data_ptr())
                self._launch((blocks, len(sources)), _THREADS, stream, arguments)
        return narrow

    def _without_kernel(self, wide: torch.Tensor, narrow: torch.Tensor) -> None:
        """Convert with torch's operators; the overflow flag stays set if it was."""
        narrow.copy_(wide)
        lost = (narrow != wide).any()
        if torch.cuda.is_current_stream_capturing():
            noted = self._overflow.to(self._device, non_blocking=True)
            self._overflow.copy_(torch.maximum(noted, lost), non_blocking=True)
        elif lost:  # waits for the GPU
            self._noted.value = 1
