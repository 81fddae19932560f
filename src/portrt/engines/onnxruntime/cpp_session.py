"""Engines of ONNX Runtime that `libportrt_runtime` opens and calls."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch

from portrt import errors, torch_internals
from portrt.engines.base import LayerTime, Session
from portrt.engines.cpp_library import library
from portrt.errors import BackendUnavailableError, EngineError, PortrtError, first_line
from portrt.verdict import Verdict


class CppSession(Session):
    """An engine that was opened in C++, for CPU tensors. Inputs and outputs are used in place.

    Args:
        manifest: Text of the block's manifest.
        blobs: Blobs of the block's call: contiguous, on the CPU, and of the right digests.
        engine: Index of the engine.
        takes_all_sizes: Whether it runs calls of every size in range.
        in_python: Opens the same engine in Python, for what only that can do.

    Attributes:
        number: Which engine of the library it is, for `portrt::run_opened_engine`.

    Raises:
        BackendUnavailableError: The library was not found, or cannot run the engine.
        EngineError: ONNX Runtime cannot open it.
        PackageError: The manifest does not describe the blobs.
    """

    supports_layer_times = True

    def __init__(
        self,
        manifest: str,
        blobs: Sequence[torch.Tensor],
        engine: int,
        *,
        takes_all_sizes: bool,
        in_python: Callable[[], Session | Verdict],
    ) -> None:
        self._library = library()
        self._blobs = list(blobs)  # the library reads them where they are
        self.takes_all_sizes = takes_all_sizes
        self._in_python = in_python
        text = manifest.encode()
        count = len(blobs)
        places = (ctypes.c_void_p * count)(*[blob.data_ptr() for blob in blobs])
        sizes = (ctypes.c_uint64 * count)(*[blob.numel() for blob in blobs])
        self.number: int = self._library.portrt_open_engine(
            *(text, len(text), places, sizes, count, engine, torch.get_num_threads())
        )
        if not self.number:
            raise self.error_of("it cannot be opened")
        weakref.finalize(self, _close, self._library, self.number, self._blobs).atexit = False
        self._call = torch_internals.function_of(torch.ops.portrt.run_opened_engine.default)

    def run(
        self,
        inputs: Sequence[torch.Tensor],
        shapes: Sequence[tuple[int, ...]],  # noqa: ARG002  (the library computes them)
    ) -> list[torch.Tensor]:
        try:
            outputs: list[torch.Tensor] = self._call(inputs, self.number)
            return outputs
        except RuntimeError as err:
            raise self.error_of(first_line(err)) from err

    def error_of(self, otherwise: str) -> PortrtError:
        """Return the library's last error in this thread, as an error of Python."""
        name, *texts = (self._library.portrt_error_text(part).decode() for part in range(4))
        self._library.portrt_forget_error()
        kind: Any = getattr(errors, name, None) if name else None
        if kind is not None:
            error: PortrtError = kind(*texts)
            return error
        return EngineError(otherwise, "a call that runs", "use runtime='python'")

    def layer_times(
        self, inputs: Sequence[torch.Tensor], shapes: Sequence[tuple[int, ...]], *, calls: int
    ) -> list[LayerTime]:
        """Time each node of the optimized graph, in a session of Python."""
        opened = self._in_python()
        if isinstance(opened, Verdict):
            raise BackendUnavailableError(
                f"the engine cannot be opened in Python: {opened.reason}",
                "the package onnxruntime",
                opened.remedy or "install it",
            )
        return opened.layer_times(inputs, shapes, calls=calls)


def _close(opened_in: ctypes.CDLL, number: int, _blobs: list[torch.Tensor]) -> None:
    opened_in.portrt_close_engine(number)
