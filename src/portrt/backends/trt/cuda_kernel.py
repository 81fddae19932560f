"""A CUDA kernel compiled at run time by torch, launched in a few microseconds."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence

import torch

from portrt import torch_internals
from portrt.backends.trt.cuda_driver import cuda_driver, current_context

_NO_CONTEXT = 201  # CUDA_ERROR_INVALID_CONTEXT

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

    def launch(
        blocks: tuple[int, int], threads: int, stream: int, arguments: Sequence[int]
    ) -> None:
        values = (ctypes.c_longlong * len(arguments))(*arguments)
        first = ctypes.addressof(values)
        pointers = (ctypes.c_void_p * len(arguments))(
            *[first + 8 * index for index in range(len(arguments))]
        )
        given = (function, *blocks, 1, threads, 1, 1, 0, ctypes.c_void_p(stream), pointers, None)
        code = driver.cuLaunchKernel(*given)
        if code == _NO_CONTEXT:  # the first use of the GPU in this thread
            driver.cuCtxSetCurrent(context)
            code = driver.cuLaunchKernel(*given)
        if code:
            raise RuntimeError(f"the CUDA driver does not launch {name}: error {code}")

    return launch
