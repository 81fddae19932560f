"""The callable that Dynamo gets: a compiled program with weights among its arguments."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind

from portrt import torch_internals
from portrt.compiler.torch_compile.graph import DynamoGraph, without_autocast
from portrt.errors import InputError

logger = logging.getLogger(__name__)

_WRITTEN = (
    OutputKind.BUFFER_MUTATION,
    OutputKind.PARAMETER_MUTATION,
    OutputKind.USER_INPUT_MUTATION,
)


def callable_of(
    program: ExportedProgram, graph: DynamoGraph, eager: Callable[..., Any]
) -> Callable[..., Any]:
    """Return a function of the Dynamo graph's arguments.

    Args:
        program: The compiled program of `graph.module`.
        graph: The prepared graph.
        eager: The graph in PyTorch, for calls that the program does not take.
    """
    signature = program.graph_signature
    inputs = iter(graph.inputs)
    positions: dict[str, int] = {}  # name of a placeholder, or of a weight -> the argument
    held: list[Any] = []
    filled: list[tuple[int, int]] = []
    for place, spec in enumerate(signature.input_specs):
        target = str(spec.target)
        position = None
        if spec.kind is InputKind.USER_INPUT:
            position = positions[spec.arg.name] = next(inputs)
        elif target in graph.weights:
            position = positions[target] = graph.weights[target]
        if position is None:
            value = program.state_dict.get(target, program.constants.get(target))
            held.append(value.detach() if isinstance(value, torch.Tensor) else value)
        else:
            filled.append((place, position))
            held.append(None)
    written = [positions[str(s.target)] for s in signature.output_specs if s.kind in _WRITTEN]
    module = torch.fx.GraphModule(program.graph_module, program.graph)
    run = _Run(module.forward, held, filled, written)
    rest = graph.outputs.rest

    def call(*args: Any) -> Any:
        if written and _overlap(args, written):
            return eager(*args)
        try:
            computed = run(args)
        except InputError as err:
            logger.warning("a call of a compiled graph runs in PyTorch: %s", err)
            return eager(*args)
        return computed if rest is None else rest(*args, *computed)

    return call


class _Run:
    """Calls the graph of a program, and copies what it computed into what it writes to."""

    def __init__(
        self,
        forward: Callable[..., Any],
        held: Sequence[Any],
        filled: Sequence[tuple[int, int]],
        written: Sequence[int],
    ) -> None:
        self._forward, self._held = forward, held
        self._filled, self._written = filled, written
        enabled = any(map(torch.is_autocast_enabled, ("cpu", "cuda")))  # a guard of Dynamo
        self._modes: Any = without_autocast if enabled else contextlib.nullcontext

    def __call__(self, args: Sequence[Any]) -> tuple[Any, ...]:
        flat = list(self._held)
        for place, position in self._filled:
            flat[place] = args[position]
        with torch.no_grad(), self._modes():
            results = self._forward(*flat)
            count = len(self._written)
            for position, value in zip(self._written, results[:count], strict=True):
                args[position].copy_(value)
        return tuple(results[count:])


def _overlap(args: Sequence[Any], written: Sequence[int]) -> bool:
    """Return whether an argument that is written to shares memory with another one."""
    memories = [
        torch_internals.storage_key(item) for item in args if isinstance(item, torch.Tensor)
    ]
    return any(memories.count(torch_internals.storage_key(args[i])) > 1 for i in written)
