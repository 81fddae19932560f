"""Compiles a CUDA kernel at run time with torch's NVRTC, and launches it with low overhead."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import torch

from portrt import torch_internals
from portrt.engines.cuda.driver import cuda_driver, current_context

# CUDA_ERROR_INVALID_CONTEXT: the first use of the GPU in a thread. CUDA_ERROR_INVALID_HANDLE: the
# context of another GPU is current, as other code may leave it (TensorRT's destructors do).
_OTHER_CONTEXT = (201, 400)

Launch = Callable[[tuple[int, int], int, int, Sequence[int]], None]


def cuda_kernel(source: str, name: str, device: torch.device) -> Launch | None:
    """Compile a kernel whose parameters are pointers and 64-bit integers.

    Args:
        source: CUDA C++; the kernel is `extern "C"`.
        name: Name of the kernel.
        device: CUDA device that it runs on.

    Returns:
        A function of ((blocks in x, blocks in y), threads per block, stream, arguments) that
        launches it; None where this torch has no compiler for CUDA.
    """
    function = torch_internals.compiled_cuda_function(source, name, device)
    if function is None:
        return None
    driver = cuda_driver()
    with torch.cuda.device(device):
        context = current_context()

    idle: list[
        tuple[Any, Any]
    ] = []  # argument buffers and their addresses, each for one launch at a time

    def launch(
        blocks: tuple[int, int], threads: int, stream: int, arguments: Sequence[int]
    ) -> None:
        try:
            values, pointers = idle.pop()
        except IndexError:
            values, pointers = _argument_buffer(len(arguments))
        values[:] = arguments
        in_x, in_y = blocks
        on = ctypes.c_void_p(stream)
        # The driver has read the arguments when it returns.
        code = driver.cuLaunchKernel(function, in_x, in_y, 1, threads, 1, 1, 0, on, pointers, None)
        if code in _OTHER_CONTEXT:
            driver.cuCtxSetCurrent(context)
            code = driver.cuLaunchKernel(
                function, in_x, in_y, 1, threads, 1, 1, 0, on, pointers, None
            )
        idle.append((values, pointers))
        if code:
            raise RuntimeError(f"the CUDA driver cannot launch {name}: CUDA error {code}")

    return launch


def _argument_buffer(count: int) -> tuple[Any, Any]:
    """Allocate a buffer for so many arguments, with the address of each."""
    values = (ctypes.c_longlong * count)()
    first = ctypes.addressof(values)
    return values, (ctypes.c_void_p * count)(*[first + 8 * index for index in range(count)])
