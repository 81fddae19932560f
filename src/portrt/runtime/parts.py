"""An engine in parts: engines for parts of a block, in a program that PyTorch runs around them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

import torch

from portrt.engines import registry
from portrt.engines.base import LayerTime, OpenOptions, Session
from portrt.engines.eager import SourceSession
from portrt.errors import PackageError, brief
from portrt.format.engine_spec import check_sizes
from portrt.format.manifest import Blob, EngineSpec, Parts, Signature, decode
from portrt.graphs import nested
from portrt.runtime.calls import is_engine_operator
from portrt.runtime.input_check import (
    Shapes,
    check_inputs,
    output_shapes,
    refuse_devices,
    refuse_dtypes,
)
from portrt.runtime.output_sizes import measured
from portrt.weights import WeightsImage

_MAX_KNOWN_SHAPES = 1024
_REMEDY = "get the file again from where it was made, or compile the model again"


def open_parts(
    engine: EngineSpec,
    parts: Parts,
    signature: Signature,
    bytes_of: Callable[[Blob], torch.Tensor],
    weights: WeightsImage | None,
    *,
    device: torch.device,
    options: OpenOptions,
) -> Session:
    """Open an engine in parts, and so all of its parts; see `open_engine`.

    Raises:
        EngineError: The native library cannot open one of the parts.
        PackageError: The program is damaged, or calls other parts than the manifest lists.
    """
    runtime = registry.runtime(engine.backend)
    program = PartsSession(signature, bytes_of(engine.data), engine.weights, weights, device)
    taken = signatures_in(program.module)
    stored = {part.name: part.engine for part in parts.engines}
    if sorted(taken) != sorted(stored):
        raise PackageError(
            f"the program in parts of {signature.name} calls {brief(sorted(taken))}",
            f"{brief(sorted(stored))}, as in its manifest",
            _REMEDY,
        )
    sessions = {}
    for name, own in taken.items():
        ranks = [len(spec.shape) for spec in own.inputs]
        check_sizes(stored[name].requires.get("nonzero_sizes", ()), ranks, f"part {name!r:.80}")
        data = bytes_of(stored[name].data)
        sessions[name] = runtime.open(
            stored[name], own, data, weights, device=device, options=options
        )
    return program.connected([_Part(own, sessions[name], device) for name, own in taken.items()])


def signatures_in(module: torch.fx.GraphModule) -> dict[str, Signature]:
    """Return name -> signature of the parts that a program calls, in the order of their calls.

    Raises:
        PackageError: It calls one twice, or a call has no manifest.
    """
    found: dict[str, Signature] = {}
    for node in nested.all_nodes(module):
        if is_engine_operator(node.target):
            signature = _signature_of(node)
            if signature.name in found:
                raise PackageError(
                    f"a program in parts calls {signature.name!r:.80} twice",
                    "one call of each part",
                    _REMEDY,
                )
            found[signature.name] = signature
    return found


def _signature_of(call: torch.fx.Node) -> Signature:
    return decode(str(call.args[2]) if len(call.args) > 2 else "").signature


class PartsSession(SourceSession):
    """Runs the program of an engine in parts; each of its calls is that of an opened engine.

    Args:
        signature: What the block takes and returns.
        program: The program, whose digest was checked: a torch.export archive.
        own_weights: Names of the weights that the program takes after its inputs.
        weights: The weights of the program; moved to the device once.
        device: Where the inputs are.

    Raises:
        PackageError: The program is not one, or the weights it names are missing.
    """

    def __init__(
        self,
        signature: Signature,
        program: torch.Tensor,
        own_weights: Sequence[str],
        weights: WeightsImage | None,
        device: torch.device,
    ) -> None:
        super().__init__(signature, program, own_weights, weights, device, "the engine in parts")
        self._unconnected = self._module
        self._parts: tuple[_Part, ...] = ()

    def connected(self, parts: Sequence[_Part]) -> PartsSession:
        """Return a session whose calls run these engines.

        Raises:
            PackageError: The calls are not of the form that torch writes.
        """
        other = copy.copy(self)
        other._parts = tuple(parts)
        try:
            other._module = _connected(self._unconnected, {part.name: part for part in parts})
        except Exception as err:
            raise PackageError(
                f"{self._label} is no program that can be called: {err}",
                "a program as torch.export writes it",
                _REMEDY,
            ) from err
        sessions = [part.session for part in parts]
        other.supports_graphs = any(session.supports_graphs for session in sessions)
        other.supports_layer_times = all(session.supports_layer_times for session in sessions)
        other.takes_all_sizes = all(session.takes_all_sizes for session in sessions)
        return other

    def graphed(self, max_recordings: int) -> Session:
        """Return the same engines, replayed as CUDA graphs where they can be."""
        return self.connected([part.graphed(max_recordings) for part in self._parts])

    def layer_times(
        self, inputs: Sequence[torch.Tensor], shapes: Sequence[tuple[int, ...]], *, calls: int
    ) -> list[LayerTime]:
        """Time the nodes in PyTorch, and then the layers of each part."""
        taken: dict[str, Sequence[torch.Tensor]] = {}
        recording = copy.copy(self)
        recorders = {part.name: _Recorder(part, taken) for part in self._parts}
        recording._module = _connected(self._unconnected, recorders)
        found = super(PartsSession, recording).layer_times(inputs, shapes, calls=calls)
        for part in self._parts:
            if part.name in taken:  # a branch may not have been taken
                given = taken[part.name]
                found += part.session.layer_times(given, part.shapes(given), calls=calls)
        return found


class _Part(torch.nn.Module):
    """One engine, called as the operator is.

    Args:
        signature: What the part takes and returns.
        session: Its opened engine.
        device: The device that it was opened for.
    """

    def __init__(self, signature: Signature, session: Session, device: torch.device) -> None:
        super().__init__()
        self.name = signature.name
        self.session = session
        self._signature = signature
        self._device = device
        self._dtypes = [getattr(torch, spec.dtype) for spec in signature.inputs]
        self._run = measured(session, signature).run
        self._known: dict[tuple[torch.Size, ...], Shapes] = {}

    def graphed(self, max_recordings: int) -> _Part:
        """Return the same engine, replayed as CUDA graphs where it can be."""
        session = self.session
        session = session.graphed(max_recordings) if session.supports_graphs else session
        return _Part(self._signature, session, self._device)

    def forward(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Run the engine."""
        return self._run(inputs, self.shapes(inputs))

    def shapes(self, inputs: Sequence[torch.Tensor]) -> Shapes:
        """Check the inputs of a call, and return the shapes of its outputs.

        Raises:
            InputError: They are not what the part takes.
        """
        shapes = self._known.get(tuple([tensor.shape for tensor in inputs]))
        if shapes is None:
            shapes = self._new_shapes(inputs)
        # Branches of one program may differ in the dtype and device of what they return.
        if [tensor.dtype for tensor in inputs] != self._dtypes:
            refuse_dtypes(self._signature, inputs)
        wanted = self._device
        for device in {tensor.device for tensor in inputs}:
            if device.type != wanted.type or wanted.index not in (None, device.index):
                refuse_devices(self._signature, inputs)
        return shapes

    def _new_shapes(self, inputs: Sequence[torch.Tensor]) -> Shapes:
        check_inputs(self._signature, inputs)
        shapes = output_shapes(self._signature, inputs)
        if len(self._known) >= _MAX_KNOWN_SHAPES:
            self._known.clear()
        self._known[tuple(tensor.shape for tensor in inputs)] = shapes
        return shapes


class _Recorder(torch.nn.Module):
    """A part that keeps the inputs of its latest call."""

    def __init__(self, part: _Part, taken: dict[str, Sequence[torch.Tensor]]) -> None:
        super().__init__()
        self._part, self._taken = part, taken

    def forward(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Run the engine."""
        self._taken[self._part.name] = list(inputs)
        found: list[torch.Tensor] = self._part(inputs)
        return found


def _connected(
    module: torch.fx.GraphModule, parts: Mapping[str, torch.nn.Module]
) -> torch.fx.GraphModule:
    """Copy a program; the copy calls these modules instead of the engine operator."""
    found = nested.copied(module)
    places = {name: f"portrt_part_{index}" for index, name in enumerate(parts)}
    for graph_module in list(nested.graph_modules(found)):
        for node in graph_module.graph.nodes:
            if is_engine_operator(node.target):
                # Not named like the part: torch writes the name of a submodule into code.
                name = _signature_of(node).name
                graph_module.add_submodule(places[name], parts[name])
                node.op, node.target, node.args = "call_module", places[name], (node.args[0],)
        graph_module.recompile()
    return found
