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

from portrt import forks
from portrt.errors import EngineError
from portrt.targets.versions import numbers

logger = logging.getLogger("portrt.tensorrt")

_MAX_MESSAGES = 6
_opening = forks.renewed(threading.Lock())
# TensorRT-RTX counts its releases from 1, and lacks what TensorRT 10 kept for older engines.
_RTX_INTERFACE = (10, 9)


def interface_of(library: str, release: str) -> tuple[int, ...]:
    """Return the TensorRT release whose interface a library has, such as (10, 13, 0, 35)."""
    return _RTX_INTERFACE if library == "tensorrt_rtx" else tuple(numbers(release))


class Library:
    """One of the libraries, with its logger and its runtimes.

    The logger and the runtimes are never destroyed: engines and contexts made from them may outlive
    the modules at the end of the process, and would crash it.

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
                "install it again; `portrt doctor` reports more",
            ) from err
        self.version = str(self.module.__version__)
        self.log = _keep(_make_logger(self.module, name))
        self._runtimes: dict[tuple[str | None, bool], Any] = {}

    def runtime(self, *, lean: str | None = None, host_code: bool = False) -> Any:
        """Return a runtime that deserializes engines.

        Args:
            lean: Path of a lean runtime library, for version-compatible engines without one.
            host_code: Allow engines that carry host (CPU) code.

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
        except TypeError as err:  # how the Python bindings report a null runtime
            raise EngineError(
                f"{self.name} {self.version} cannot create a runtime{self.recent_log()}",
                "an NVIDIA GPU, and a driver that supports the CUDA version of this library",
                "update the driver; `portrt doctor` reports more",
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
        _messages().clear()

    def recent_log(self) -> str:
        """Return errors logged in this thread, as lines for an error message, and clear them."""
        lines = "".join(f"\n    {line}" for line in _messages())
        _messages().clear()
        return lines


_libraries: dict[str, Library] = {}


def library(name: str) -> Library:
    """Return the library of that name: one object for all threads.

    Raises:
        EngineError: It cannot be loaded.
    """
    with _opening:
        if name not in _libraries:
            _libraries[name] = Library(name)
        return _libraries[name]


_thread = threading.local()
_ended: list[bool] = []  # set at the end of the process, when modules are partly destroyed
atexit.register(_ended.append, True)


def _messages() -> deque[str]:
    """Return this thread's last errors."""
    if not hasattr(_thread, "messages"):
        _thread.messages = deque(maxlen=_MAX_MESSAGES)
    messages: deque[str] = _thread.messages
    return messages


def _make_logger(module: Any, name: str) -> Any:
    severity = module.ILogger.Severity
    levels = {
        severity.INTERNAL_ERROR: logging.ERROR,
        severity.ERROR: logging.WARNING,  # it is raised, or another engine is used
        severity.WARNING: logging.INFO,
        severity.INFO: logging.DEBUG,
    }

    ended = _ended  # a closure variable: the module's globals may be destroyed

    class Log(module.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            module.ILogger.__init__(self)

        def log(self, level: Any, message: str) -> None:
            if ended:
                return
            if level in (severity.INTERNAL_ERROR, severity.ERROR):
                _messages().append(str(message).strip())
            logger.log(levels.get(level, logging.NOTSET + 1), "%s: %s", name, message)

    return Log()


def _keep(thing: Any) -> Any:
    """Keep an object alive for good, by a reference that is never released; return it."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
    return thing
