"""The CUDA driver's library, for the few calls that torch does not offer."""

from __future__ import annotations

import ctypes
import sys
from functools import lru_cache

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: not in the order of the default stream


@lru_cache
def cuda_driver() -> ctypes.PyDLL:
    """Called with the interpreter's lock held: these calls are too short to give it away."""
    return ctypes.PyDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")


def current_context() -> ctypes.c_void_p:
    """The CUDA context that is current in this thread; null in one that did not use CUDA yet."""
    context = ctypes.c_void_p()
    code = cuda_driver().cuCtxGetCurrent(ctypes.byref(context))
    if code:
        raise RuntimeError(f"the CUDA driver does not tell its context: error {code}")
    return context


def new_stream() -> int:
    """Handle of a new stream in the current context, which lives as long as the process.

    Torch's streams come from a pool of 32, so that two that are asked for may be one.
    """
    stream = ctypes.c_void_p()
    code = cuda_driver().cuStreamCreate(ctypes.byref(stream), _NON_BLOCKING)
    if code or not stream.value:
        raise RuntimeError(f"the CUDA driver makes no stream: error {code}")
    return stream.value
