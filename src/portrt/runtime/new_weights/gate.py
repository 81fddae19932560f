"""Calls and updates of a module exclude each other, where a call reads several tensors of it."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import torch

from portrt import forks

_gates: weakref.WeakKeyDictionary[type, Gate] = weakref.WeakKeyDictionary()


class Gate:
    """Lets calls through together, and an update alone."""

    def __init__(self) -> None:
        self._lock = forks.renewed(threading.Lock())
        self._reset()

    def _reset(self) -> None:
        self._condition = threading.Condition(self._lock)
        self._calls: dict[int, int] = {}  # thread -> calls inside each other
        self._updating = False

    def enter(self) -> None:
        """Begin a call; wait for an update that is under way."""
        thread = threading.get_ident()
        with self._condition:
            inner = self._calls.get(thread, 0)
            while self._updating and not inner:
                self._condition.wait()
            self._calls[thread] = inner + 1

    def leave(self) -> None:
        """End a call."""
        thread = threading.get_ident()
        with self._condition:
            left = self._calls[thread] - 1
            if left:
                self._calls[thread] = left
                return
            del self._calls[thread]
            self._condition.notify_all()

    def is_in_call(self) -> bool:
        """Return whether this thread is in a call."""
        with self._condition:
            return threading.get_ident() in self._calls

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no other thread is in a call, and keep new calls waiting."""
        thread = threading.get_ident()
        with self._condition:
            while self._updating:
                self._condition.wait()
            self._updating = True
            while self._calls.keys() - {thread}:
                self._condition.wait()
        try:
            yield
        finally:
            with self._condition:
                self._updating = False
                self._condition.notify_all()

    def forked(self) -> None:
        """In a forked child: the calls of the parent's other threads never end here."""
        self._reset()


def _forked() -> None:
    for gate in list(_gates.values()):
        gate.forked()


forks.in_child(_forked)


def add_gate(module: torch.fx.GraphModule) -> None:
    """Make a module's calls go through a gate; its class must be its own."""
    kind: Any = type(module)
    gate = _gates[kind] = Gate()
    inner = kind.__call__

    def call(self: torch.fx.GraphModule, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return inner(self, *args, **kwargs)
        gate.enter()
        try:
            return inner(self, *args, **kwargs)
        finally:
            gate.leave()

    kind.__call__ = call


def is_in_call(module: torch.nn.Module) -> bool:
    """Return whether this thread is in a call of a module that has a gate."""
    gate = _gates.get(type(module))
    return gate is not None and gate.is_in_call()


def gate_of(module: torch.nn.Module) -> contextlib.AbstractContextManager[None]:
    """Return what an update of a module waits for: its gate, if its calls go through one."""
    gate = _gates.get(type(module))
    return contextlib.nullcontext() if gate is None else gate.alone()


def copy_gate(module: torch.fx.GraphModule, copied: torch.fx.GraphModule) -> None:
    """Give the copy of a module a gate of its own, if the module has one."""
    if type(module) in _gates:
        add_gate(copied)
