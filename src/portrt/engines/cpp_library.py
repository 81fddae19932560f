"""`libportrt_runtime`, found and loaded once in a process."""

from __future__ import annotations

import ctypes
import json
import os
import threading
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from portrt.cache.location import CPP, CPP_LIBRARY, cache_folder
from portrt.errors import BackendUnavailableError, first_line

ENV_LIBRARY = "PORTRT_CPP_LIBRARY"

# Of the functions that are called: csrc/torch/opened_engines.h.
_INTERFACE = 1

_ENTRY = "portrt_python_interface"

_lock = threading.Lock()
_found: list[ctypes.CDLL | BackendUnavailableError] = []


def library() -> ctypes.CDLL:
    """Return the library, loaded by the first call.

    Raises:
        BackendUnavailableError: There is none that fits; every call raises the same error.
    """
    with _lock:
        if not _found:
            try:
                _found.append(_loaded())
            except BackendUnavailableError as err:
                _found.append(err)
    if isinstance(_found[0], BackendUnavailableError):
        raise _found[0]
    return _found[0]


def _loaded() -> ctypes.CDLL:
    path = next(_candidates(), None)
    if path is None:
        raise _unavailable("no library of the C++ runtime was found")
    try:
        if _ENTRY.encode() not in Path(path).read_bytes():  # loading it would register its kernels
            raise AttributeError(f"it has no function {_ENTRY}")
        load: Any = torch.ops.load_library  # untyped
        load(path)
        found = ctypes.CDLL(path)
        interface = found[_ENTRY]()
    except (OSError, AttributeError, RuntimeError) as err:
        raise _unavailable(f"{path} is not this C++ runtime: {first_line(err)}") from err
    if interface != _INTERFACE:
        why = "another copy of it is loaded" if interface == 0 else f"its interface is {interface}"
        raise _unavailable(f"{path} cannot be used: {why}")
    found.portrt_open_engine.restype = ctypes.c_int64
    found.portrt_open_engine.argtypes = [
        *(ctypes.c_char_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p),
        *(ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int),
    ]
    found.portrt_close_engine.restype = None
    found.portrt_close_engine.argtypes = [ctypes.c_int64]
    found.portrt_error_text.restype = ctypes.c_char_p
    if onnxruntime := _onnxruntime():
        found.portrt_set_onnxruntime(str(onnxruntime).encode())
    return found


def _unavailable(happened: str) -> BackendUnavailableError:
    return BackendUnavailableError(
        happened,
        f"{CPP_LIBRARY} of this version of portrt",
        f"run `portrt cpp build`, or name the library in {ENV_LIBRARY}",
    )


def _candidates() -> Iterator[str]:
    """Return libraries, best first: what the environment names, what is loaded, what was built."""
    given = os.environ.get(ENV_LIBRARY)
    if given:
        yield given
        return
    yield from (path for path in torch.ops.loaded_libraries if Path(path).name == CPP_LIBRARY)
    cache = cache_folder()
    if cache is not None:
        built = [path for path in (cache / CPP).glob(f"*/lib/{CPP_LIBRARY}") if _is_ours(path)]
        yield from map(str, sorted(built, key=lambda path: -path.stat().st_mtime))


def _is_ours(path: Path) -> bool:
    """Return whether this version of portrt built it."""
    try:
        stamp = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(stamp, dict) and stamp.get("portrt") == metadata.version("portrt")


def _onnxruntime() -> Path | None:
    """Return the library in the package onnxruntime, which Python's sessions are of, too."""
    spec = find_spec("onnxruntime")
    folders = (spec.submodule_search_locations or ()) if spec is not None else ()
    found = (Path(folder, "capi").glob("libonnxruntime.so*") for folder in folders)
    return max((path for paths in found for path in paths), default=None)
