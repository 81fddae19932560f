"""Bindings of the CUDA driver library, for the few calls that torch does not offer."""

from __future__ import annotations

import ctypes
import sys
from functools import lru_cache

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: not synchronized with the default stream


@lru_cache
def cuda_driver() -> ctypes.PyDLL:
    """Load the driver library once.

    As a PyDLL, which holds the GIL during a call: these calls are too short to release it.
    """
    return ctypes.PyDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")


def current_context() -> ctypes.c_void_p:
    """Return this thread's current CUDA context; null in a thread that has not used CUDA.

    Raises:
        RuntimeError: The driver returns an error.
    """
    context = ctypes.c_void_p()
    code = cuda_driver().cuCtxGetCurrent(ctypes.byref(context))
    if code:
        raise RuntimeError(f"cuCtxGetCurrent failed with CUDA error {code}")
    return context


def new_stream() -> int:
    """Create a stream in the current context, and return its handle; it is never destroyed.

    Torch's streams come from a pool of 32, so that two requested streams may be the same one.

    Raises:
        RuntimeError: The driver returns an error.
    """
    stream = ctypes.c_void_p()
    code = cuda_driver().cuStreamCreate(ctypes.byref(stream), _NON_BLOCKING)
    if code or not stream.value:
        raise RuntimeError(f"cuStreamCreate failed with CUDA error {code}")
    return stream.value
