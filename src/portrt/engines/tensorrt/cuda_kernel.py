"""A CUDA kernel compiled at run time by torch, launched in a few microseconds."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import torch

from portrt import torch_internals
from portrt.engines.tensorrt.cuda_driver import cuda_driver, current_context

# CUDA_ERROR_INVALID_CONTEXT: the first use of the GPU in a thread. CUDA_ERROR_INVALID_HANDLE: the
# context of another GPU is current, as other code may leave it (TensorRT's objects do as they end).
_OTHER_CONTEXT = (201, 400)

Launch = Callable[[tuple[int, int], int, int, Sequence[int]], None]


def cuda_kernel(source: str, name: str, device: torch.device) -> Launch | None:
    """Compile a kernel whose parameters are pointers and 64-bit integers.

    Args:
        source: CUDA C++; the kernel is `extern "C"`.
        name: Its name.
        device: What it will run on.

    Returns:
        ((blocks in x, in y), threads a block, stream, arguments) -> None, or None where this torch
        has no compiler for CUDA.
    """
    function = torch_internals.compiled_cuda_function(source, name, device)
    if function is None:
        return None
    driver = cuda_driver()
    with torch.cuda.device(device):
        context = current_context()

    idle: list[tuple[Any, Any]] = []  # arguments and their addresses, each for one launch at a time

    def launch(
        blocks: tuple[int, int], threads: int, stream: int, arguments: Sequence[int]
    ) -> None:
        try:
            values, pointers = idle.pop()
        except IndexError:
            values, pointers = _room(len(arguments))
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
            raise RuntimeError(f"the CUDA driver does not launch {name}: error {code}")

    return launch


def _room(count: int) -> tuple[Any, Any]:
    """Room for so many arguments, and the address of each."""
    values = (ctypes.c_longlong * count)()
    first = ctypes.addressof(values)
    return values, (ctypes.c_void_p * count)(*[first + 8 * index for index in range(count)])
