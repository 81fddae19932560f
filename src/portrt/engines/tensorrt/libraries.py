"""The libraries that run TensorRT engines, each loaded once and kept until the process ends.

`tensorrt`, `tensorrt_lean`, `tensorrt_dispatch` and `tensorrt_rtx` have the same Python interface
and are independent of each other: any of them may be in use at the same time.
"""

from __future__ import annotations

import atexit
import ctypes
import logging
import threading
from collections import deque
from importlib import import_module
from typing import Any

from portrt.errors import EngineError
from portrt.targets.versions import numbers

logger = logging.getLogger("portrt.tensorrt")

_LAST_WORDS = 6
_opening = threading.Lock()
# TensorRT-RTX counts its releases from 1, and lacks what TensorRT 10 kept for older engines.
_RTX_INTERFACE = (10, 9)


def interface_of(library: str, release: str) -> tuple[int, ...]:
    """The TensorRT release whose interface a release of a library has, such as (10, 13, 0, 35)."""
    return _RTX_INTERFACE if library == "tensorrt_rtx" else tuple(numbers(release))


class Library:
    """One of the libraries, with its logger and its runtimes.

    The logger and the runtimes are never destroyed: what was made from them may outlive the
    modules at the end of the process, and crashes it without them.

    Args:
        name: Name of its Python module.

    Raises:
        EngineError: It cannot be imported, or finds no CUDA device.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        try:
            self.module: Any = import_module(name)
        except Exception as err:
            raise EngineError(
                f"{name} cannot be imported: {type(err).__name__}: {err}",
                "a TensorRT library that this Python can load",
                "install it again; `portrt doctor` tells more",
            ) from err
        self.version = str(self.module.__version__)
        self.log = _keep(_make_logger(self.module, name))
        self._runtimes: dict[tuple[str | None, bool], Any] = {}

    def runtime(self, *, lean: str | None = None, host_code: bool = False) -> Any:
        """A runtime that deserializes engines.

        Args:
            lean: Path of a lean runtime library, for version-compatible engines without one.
            host_code: Allow engines to bring code for the CPU along.

        Raises:
            EngineError: There is no driver or no GPU, or the lean library does not load.
        """
        key = (lean, host_code)
        with _opening:
            if key not in self._runtimes:
                self._runtimes[key] = self._make_runtime(lean, host_code=host_code)
            return self._runtimes[key]

    def _make_runtime(self, lean: str | None, *, host_code: bool) -> Any:
        self.clear_log()
        try:
            runtime = self.module.Runtime(self.log)
        except TypeError as err:  # what the bindings make of a runtime that is null
            raise EngineError(
                f"{self.name} {self.version} gives no runtime{self.recent_log()}",
                "an NVIDIA GPU, and a driver that knows the CUDA of this library",
                "update the driver; `portrt doctor` tells more",
            ) from err
        runtime.engine_host_code_allowed = host_code
        if lean is not None:
            _keep(runtime)
            runtime = runtime.load_runtime(lean)
        if runtime is None:
            raise EngineError(
                f"{self.name} {self.version} cannot load the lean runtime {lean}"
                f"{self.recent_log()}",
                "the lean runtime library of the TensorRT that built the engine",
                "set PORTRT_TENSORRT_LEAN to its path, or install tensorrt_lean",
            )
        runtime.engine_host_code_allowed = host_code
        return _keep(runtime)

    def clear_log(self) -> None:
        """Clear this thread's log; `recent_log` returns messages logged after this call."""
        _said().clear()

    def recent_log(self) -> str:
        """What the libraries complained of in this thread, as lines for an error message.

        It is told once: the next error has its own story.
        """
        told = "".join(f"\n    {line}" for line in _said())
        _said().clear()
        return told


_libraries: dict[str, Library] = {}


def library(name: str) -> Library:
    """The library of that name: one object, whichever threads ask at once.

    Raises:
        EngineError: It cannot be loaded.
    """
    with _opening:
        if name not in _libraries:
            _libraries[name] = Library(name)
        return _libraries[name]


_thread = threading.local()
_ended: list[bool] = []  # at the end of the process nobody reads, and modules are half gone
atexit.register(_ended.append, True)


def _said() -> deque[str]:
    if not hasattr(_thread, "said"):
        _thread.said = deque(maxlen=_LAST_WORDS)
    said: deque[str] = _thread.said
    return said


def _make_logger(module: Any, name: str) -> Any:
    severity = module.ILogger.Severity
    levels = {
        severity.INTERNAL_ERROR: logging.ERROR,
        severity.ERROR: logging.WARNING,  # it is raised, or another engine is taken
        severity.WARNING: logging.INFO,
        severity.INFO: logging.DEBUG,
    }

    ended = _ended  # the name in the module is one of the things that are gone

    class Log(module.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            module.ILogger.__init__(self)

        def log(self, level: Any, message: str) -> None:
            if ended:
                return
            if level in (severity.INTERNAL_ERROR, severity.ERROR):
                _said().append(str(message).strip())
            logger.log(levels.get(level, logging.NOTSET + 1), "%s: %s", name, message)

    return Log()


def _keep(thing: Any) -> Any:
    """The same object, with a reference that is never given back."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
    return thing
