"""The backends, one row each. Imports no torch and no vendor module."""

from __future__ import annotations

from collections.abc import Sequence

# Libraries that run TensorRT engines, in order of preference.
RUNTIMES = ("tensorrt", "tensorrt_lean", "tensorrt_dispatch")

# Backend -> the libraries of which one runs its engines. The first is also the key of the version
# in `requires`.
LIBRARIES = {
    "tensorrt": RUNTIMES,
    "tensorrt_rtx": ("tensorrt_rtx",),
    "onnxruntime": ("onnxruntime",),
}


# Libraries that run engines of their own release alone.
_EXACT = frozenset({"tensorrt_rtx"})


INSTALL = {
    "tensorrt": "pip install tensorrt",
    "tensorrt_rtx": "pip install tensorrt-rtx-cu13",
    "onnxruntime": "pip install onnxruntime",
}


def known_libraries() -> Sequence[str]:
    """Libraries of which a machine may be said to have a version."""
    return tuple(name for names in LIBRARIES.values() for name in names)


# In the order in which engines are preferred when the user names none.
BACKENDS = {
    "tensorrt": "portrt.compiler.backends.tensorrt.tensorrt:TensorRTBackend",
    "tensorrt_rtx": "portrt.compiler.backends.tensorrt.tensorrt_rtx:TensorRTRTXBackend",
    "onnxruntime": "portrt.compiler.backends.onnxruntime.build:OnnxRuntimeBackend",
}


# Backend -> the dataclass of the options that it alone has, for `compile`.
OPTIONS = {
    "tensorrt": "portrt.compiler.backends.tensorrt.options:TensorRTOptions",
    "tensorrt_rtx": "portrt.compiler.backends.tensorrt.options:TensorRTOptions",
}

# The module that builds engines from stored sources, for rebuild="missing". The runtime looks it
# up by name and does without it where it is not installed.
REBUILDER = "portrt.compiler.building.rebuild"


def names() -> tuple[str, ...]:
    """Names of all backends, in the default order of preference."""
    return tuple(BACKENDS)
