"""int64 of torch to the INT32 of an older engine, with a watch for numbers that do not fit."""

from __future__ import annotations

import ctypes

import torch

from portrt.backends.trt.cuda_kernel import cuda_kernel

# One kernel reads, writes and looks: torch's own operators would be three, at 2 us each.
_SOURCE = """
extern "C" __global__ void portrt_narrow(
    const long long* wide, int* narrow, long long count, int* overflow) {
  long long step = (long long)gridDim.x * blockDim.x;
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) {
    long long value = wide[i];
    int small = (int)value;
    narrow[i] = small;
    if ((long long)small != value) *overflow = 1;
  }
}
"""
_THREADS, _MOST_BLOCKS = 256, 1024


class Narrower:
    """Converts on the stream of the call; the GPU notes an overflow in memory of the CPU.

    Args:
        device: Where the tensors are.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._overflow = torch.zeros(1, dtype=torch.int32, pin_memory=True)
        self._noted = ctypes.c_int.from_address(self._overflow.data_ptr())
        self._launch = cuda_kernel(_SOURCE, "portrt_narrow", device)

    @property
    def overflowed(self) -> bool:
        """Whether a conversion that the GPU has done since the last look lost a number."""
        if not self._noted.value:
            return False
        self._noted.value = 0
        return True

    def __call__(
        self, wide: torch.Tensor, stream: int, narrow: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The same numbers as int32.

        Args:
            wide: int64, any shape and layout.
            stream: The current one.
            narrow: Contiguous int32 of the same shape to write to; None makes one.
        """
        if narrow is None:
            narrow = torch.empty(wide.shape, dtype=torch.int32, device=wide.device)
        count = wide.numel()
        if not count:
            return narrow
        if self._launch is None:  # a torch without a compiler for CUDA
            narrow.copy_(wide)
            self._overflow.copy_((narrow != wide).any(), non_blocking=True)
            return narrow
        wide = wide.contiguous()
        blocks = min((count + _THREADS - 1) // _THREADS, _MOST_BLOCKS)
        self._launch(
            blocks,
            _THREADS,
            stream,
            (wide.data_ptr(), narrow.data_ptr(), count, self._overflow.data_ptr()),
        )
        return narrow
