"""The CUDA driver's library, for the few calls that torch does not offer."""

from __future__ import annotations

import ctypes
import sys
from functools import lru_cache


@lru_cache
def cuda_driver() -> ctypes.PyDLL:
    """Called with the interpreter's lock held: these calls are too short to give it away."""
    return ctypes.PyDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
