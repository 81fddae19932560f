"""The callable that Dynamo gets: a compiled program with weights among its arguments."""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind

from portrt import torch_internals
from portrt.compiler.torch_compile.graph import DynamoGraph, without_autocast
from portrt.errors import InputError
from portrt.runtime.op import execute_engine, register
from portrt.torch_internals.dynamo import storage_key

logger = logging.getLogger(__name__)

register()  # where autoloading of backends is switched off, or portrt is not installed
_EXECUTE = torch.ops.portrt.execute_engine.default
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
    run = _Run(module.forward, _one_engine(program.graph, held), held, filled, written)
    rest = graph.outputs.rest
    level = logging.WARNING

    def call(*args: Any) -> Any:
        if written and _overlap(args, written):
            return eager(*args)
        nonlocal level
        try:
            computed = run(args)
        except InputError as err:
            logger.log(level, "a call of a compiled graph runs in PyTorch: %s", err)
            level = logging.DEBUG  # once for each graph
            return eager(*args)
        return computed if rest is None else rest(*args, *computed)

    return call


class _Run:
    """Calls the graph of a program, and copies what it computed into what it writes to."""

    def __init__(
        self,
        forward: Callable[..., Any],
        direct: Callable[..., Any] | None,
        held: Sequence[Any],
        filled: Sequence[tuple[int, int]],
        written: Sequence[int],
    ) -> None:
        self._forward, self._direct, self._held = forward, direct, held
        self._filled, self._written = filled, written
        # Dynamo guards both: they are the same at each call.
        self._gradients = torch.is_grad_enabled()
        self._autocast = any(map(torch.is_autocast_enabled, ("cpu", "cuda")))

    def __call__(self, args: Sequence[Any]) -> tuple[Any, ...]:
        flat = list(self._held)
        for place, position in self._filled:
            flat[place] = args[position]
        if self._gradients or self._autocast:
            with torch.no_grad(), without_autocast():
                return self._results(flat, args)
        return self._results(flat, args)

    def _results(self, flat: Sequence[Any], args: Sequence[Any]) -> tuple[Any, ...]:
        if self._direct is not None and torch_internals.nothing_intercepts():
            results = self._direct(flat)
        else:
            results = self._forward(*flat)
        count = len(self._written)
        for position, value in zip(self._written, results[:count], strict=True):
            args[position].copy_(value)
        return tuple(results[count:])


def _one_engine(
    graph: torch.fx.Graph, held: Sequence[Any]
) -> Callable[[Sequence[Any]], tuple[Any, ...]] | None:
    """Return a function of the flat inputs that runs the block without torch's dispatcher.

    None if the graph is not one engine call.
    """
    nodes = list(graph.nodes)
    places = {node: index for index, node in enumerate(nodes) if node.op == "placeholder"}
    calls = [node for node in nodes if node.op not in ("placeholder", "output")]
    engine = next((node for node in calls if node.target is _EXECUTE), None)
    results: Any = graph.output_node().args[0]
    if engine is None or not all(
        node is engine or (node.target is operator.getitem and node.args[0] is engine)
        for node in calls
    ):
        return None
    if any(not isinstance(node, torch.fx.Node) or node in places for node in results):
        return None
    inputs = [places[node] for node in engine.args[0]]
    blobs = [held[places[node]] for node in engine.args[1]]
    manifest = engine.args[2]
    indices = [node.args[1] for node in results]

    def direct(flat: Sequence[Any]) -> tuple[Any, ...]:
        found = execute_engine([flat[place] for place in inputs], blobs, manifest)
        return tuple([found[index] for index in indices])

    return direct


def _overlap(args: Sequence[Any], written: Sequence[int]) -> bool:
    """Return whether an argument that is written to shares memory with another one."""
    memories = [storage_key(item) for item in args if isinstance(item, torch.Tensor)]
    return any(memories.count(storage_key(args[i])) > 1 for i in written)
