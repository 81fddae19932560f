"""Keeps a forked child usable: it has one thread alone, and copies of what the others held.

Imports no torch.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

Lock = TypeVar("Lock")  # `threading.Lock` is a function up to Python 3.12

_locks: weakref.WeakSet[Any] = weakref.WeakSet()


def in_child(call: Callable[[], object]) -> None:
    """Call a function in each child that this process forks; it must not raise."""
    if hasattr(os, "register_at_fork"):  # Windows has no forks
        os.register_at_fork(after_in_child=call)


def end_without_native_handlers() -> None:
    """Let this process end as Python does, but without the exit handlers of native libraries.

    For a forked child: handlers of its parent may wait for threads that only the parent has, as
    those of ONNX Runtime 1.32 do, whose import starts one. Handlers that this process registers
    later, and Python's own, run before. Has no effect where the C library is not glibc.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "on_exit"):
        # The last one is called first. `on_exit` passes the exit status, as `_exit` takes it.
        libc.on_exit(libc._exit, None)
        libc.on_exit(libc.fcloseall, None)  # writes what the C library has buffered


def renewed(lock: Lock) -> Lock:
    """Return a `threading.Lock` or `RLock` that is free in a forked child.

    A thread of the parent that holds it would never release it there.
    """
    _locks.add(lock)
    return lock


def _renew() -> None:
    for lock in list(_locks):
        lock._at_fork_reinit()  # as the standard library does with its own


in_child(_renew)
