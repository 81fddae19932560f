"""The backends by name. To add one: a file with one class, and a line below."""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module

from portrt.compiler.backends.base import Backend
from portrt.errors import BackendUnavailableError
from portrt.targets.backends import BACKENDS


@lru_cache
def backend(name: str) -> Backend:
    """The backend of that name.

    Raises:
        BackendUnavailableError: There is none; the message lists the known names.
    """
    if name not in BACKENDS:
        raise BackendUnavailableError(
            f"there is no engine {name!r}",
            f"one of {', '.join(map(repr, BACKENDS))}",
            "correct the name; `portrt doctor` tells which of them work on this machine",
        )
    module, _, attribute = BACKENDS[name].partition(":")
    made: Backend = getattr(import_module(module), attribute)()
    return made
