"""Module of a program that is one engine call, which torch has not read yet.

A call needs the block alone. Whatever else is done with the module has torch read the program, and
makes the object the module that torch makes of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from portrt import forks, torch_internals
from portrt.errors import InputError
from portrt.format.one_call import OneCall
from portrt.runtime.block import Run
from portrt.runtime.input_check import Shapes
from portrt.runtime.op import load_block
from portrt.runtime.policy import CONTEXT

_MAX_KNOWN = 1024

# Looked up on the class: `__getattribute__` does not see them.
_SPECIAL = (
    *("__repr__", "__str__", "__dir__", "__setattr__", "__delattr__", "__copy__", "__deepcopy__"),
    *("__reduce__", "__reduce_ex__", "__sizeof__"),
)

# Reads the program with these tensors as its constants, and returns its module.
Read = Callable[[Mapping[str, torch.Tensor]], torch.nn.Module]


def unread_module(call: OneCall, blobs: Sequence[torch.Tensor], read: Read) -> torch.nn.Module:
    """Return a module that runs a block, and reads its program when more is wanted.

    Args:
        call: The program.
        blobs: Blobs of the call, in order.
        read: Reads the program; called at most once.
    """
    return UnreadModule(_State(call, blobs, read))


class _State:
    """What a module that was not read holds.

    Attributes:
        block: Its block.
        positions: Position among the arguments of each engine input.
        count: Number of arguments.
        make: Makes the program's output of the engine's results.
        known: Prepared calls, by policy and by shape, dtype and device of each argument.
    """

    def __init__(self, call: OneCall, blobs: Sequence[torch.Tensor], read: Read) -> None:
        self.block = load_block(blobs, call.text)
        self.positions = call.positions
        self.count = len(call.positions)
        self.make = _maker(call.output, call.results)
        self.known: dict[tuple[Any, ...], tuple[Run, Shapes]] = {}
        self._constants = {name: blob for (name, _), blob in zip(call.blobs, blobs, strict=True)}
        self._read = read
        self._lock = forks.renewed(threading.RLock())

    def turn(self, module: torch.nn.Module) -> None:
        """Have the program read; the object is torch's module from then on."""
        with self._lock:
            if type(module) is UnreadModule:
                made = self._read(self._constants)
                object.__setattr__(module, "__dict__", vars(made))
                object.__setattr__(module, "__class__", type(made))

    def prepare(self, key: tuple[Any, ...], inputs: Sequence[torch.Tensor]) -> tuple[Run, Shapes]:
        """Prepare calls with such inputs; raises what the block raises."""
        if len(self.known) >= _MAX_KNOWN:
            self.known.clear()
        found = self.known[key] = self.block.prepared(inputs)
        return found


class UnreadModule(torch.nn.Module):
    """Runs a block, and becomes torch's module of the program when more than calls is wanted."""

    def __init__(self, state: _State) -> None:
        object.__setattr__(self, "__dict__", {"state": state})

    def __getattribute__(self, name: str) -> Any:
        if name == "__class__":  # `isinstance` looks it up, also for classes that it is not of
            return torch.fx.GraphModule
        return getattr(_read(self), name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        state: _State = _attributes(self)["state"]
        if torch.compiler.is_compiling() or kwargs or len(args) != state.count or not _usual():
            return _read(self)(*args, **kwargs)
        key: list[Any] = [CONTEXT.get()]
        for item in args:
            if type(item) is not _plain or item.is_neg():  # a view with the negative bit set
                return _read(self)(*args)
            key += (item.shape, item.dtype, item.device)
        found = state.known.get(tuple(key))
        inputs = [args[position] for position in state.positions]
        if found is None:
            try:
                found = state.prepare(tuple(key), inputs)
            except InputError:  # the program's own error names its arguments
                return _read(self)(*args)
        return state.make(found[0](inputs, found[1]))


def _delegated(name: str) -> Callable[..., Any]:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(_read(self), name)(*args, **kwargs)

    method.__name__ = name
    return method


for _name in _SPECIAL:
    setattr(UnreadModule, _name, _delegated(_name))

_usual = torch_internals.nothing_intercepts
_plain = torch.Tensor


def _attributes(module: torch.nn.Module) -> dict[str, Any]:
    found: dict[str, Any] = object.__getattribute__(module, "__dict__")
    return found


def _read(module: Any) -> Any:
    state = _attributes(module).get("state")
    if isinstance(state, _State):  # else another thread had it read
        state.turn(module)
    return module


def _maker(output: Any, results: Sequence[int]) -> Callable[[list[torch.Tensor]], Any]:
    """Return the function from the engine's results to the program's output."""
    if isinstance(output, int):
        (only,) = results
        return lambda made: made[only]
    if isinstance(output, tuple) and all(isinstance(item, int) for item in output):
        return lambda made: tuple([made[index] for index in results])

    def build(item: Any, made: list[torch.Tensor]) -> Any:
        if isinstance(item, int):
            return made[results[item]]
        if isinstance(item, dict):
            return {key: build(value, made) for key, value in item.items()}
        return type(item)(build(value, made) for value in item)

    return lambda made: build(output, made)
