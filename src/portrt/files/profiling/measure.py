"""profile: times a file on this machine, first as it is, then layer by layer."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from portrt import torch_internals
from portrt.engines import registry
from portrt.engines.base import LayerTime
from portrt.engines.eager import program_from_source
from portrt.engines.node_times import WARM_UP, NodeTimes, describe
from portrt.errors import EngineError, InputError, PortrtError, SettingsError
from portrt.files.profiling.result import BlockProfile, FileProfile
from portrt.files.profiling.source_nodes import SourceNode, printable, source_nodes
from portrt.graphs.node_names import nodes_of_layer
from portrt.graphs.program_inputs import call_arguments, flat_signature
from portrt.runtime.calls import is_engine_operator
from portrt.runtime.devices import device_by_name
from portrt.runtime.input_check import output_shapes
from portrt.runtime.load import load
from portrt.runtime.module import module_of
from portrt.runtime.op import load_block
from portrt.runtime.policy import policy
from portrt.runtime.random_inputs import sample_inputs
from portrt.runtime.select import EAGER, FallbackWarning
from portrt.runtime.stored_block import StoredBlock

logger = logging.getLogger(__name__)


def profile(
    path: str | os.PathLike[str],
    inputs: Sequence[Any] | None = None,
    *,
    engine: str | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    device: str = "cpu",
    calls: int = 30,
    seed: int = 0,
) -> FileProfile:
    """Time the layers of every block of a compiled file, and the nodes between the blocks.

    The active policy applies, as in any call. Times are medians over calls, without warm-up calls.
    A plain call is timed separately, because timing layers has overhead: the layers of a block may
    take longer than its call. Where they take less, the rest is spent between them.

    Args:
        path: The file.
        inputs: The program's flat inputs, in call order; None generates random ones of the opt
            sizes of the engines.
        engine: Backend that every block must run as, or "eager" for its source in PyTorch; None
            selects as in any call of the program.
        shapes: Input -> its shape, for random inputs of other sizes.
        device: Device of the inputs.
        calls: Number of calls to time, at least 1.
        seed: Seed of the random inputs.

    Raises:
        LoadError: The file is no torch.export archive, or damaged.
        PackageError: A manifest or a blob in it is damaged.
        SettingsError: The engine is unknown, `calls` is below 1, or there is no such device here.
        InputError: The inputs or shapes are not those of the program.
        NoUsableEngineError: A block cannot run as `engine` here, or not at all.
        EngineError: An engine failed, or its profiler did.
    """
    if calls < 1:
        raise SettingsError(f"calls is {calls}", "a number from 1", "time at least one call")
    if inputs is not None and shapes:
        raise SettingsError("inputs and shapes were given", "one of them", "leave one out")
    where = device_by_name(device)
    program = load(path)
    flat = sample_inputs(program, shapes or {}, seed) if inputs is None else list(inputs)
    flat = [item.to(where) if isinstance(item, torch.Tensor) else item for item in flat]
    names = flat_signature(program)
    if len(flat) != len(names):
        raise InputError(
            f"{len(flat)} inputs were given",
            f"{len(names)}: {', '.join(names)}",
            "give one value for each flat input of the program, in that order",
        )
    try:
        with only(engine), torch_internals.without_torch_noise(), torch.no_grad():
            found = _Measurement(program, flat, where, calls)
    except PortrtError:
        raise
    except Exception as err:  # an operator in PyTorch does not take what the graph gives it
        raise EngineError(
            f"the program failed: {type(err).__name__}: {err!s:.300}",
            "a program that runs on these inputs",
            "give inputs that it takes, or get the file again from where it was made",
        ) from err
    return FileProfile(
        file=printable(Path(path).name),
        device=device,
        machine=_machine(where, found.blocks),
        inputs=tuple(
            {**_input(name, value), "random": inputs is None}
            for name, value in zip(names, flat, strict=True)
        ),
        calls=calls,
        call_seconds=found.call_seconds,
        blocks=tuple(found.blocks),
        outside=found.outside,
    )


@contextlib.contextmanager
def only(engine: str | None) -> Iterator[None]:
    """Allow one backend alone, or PyTorch alone."""
    if engine is None:
        yield
    elif engine != EAGER:
        with policy(engines=engine, fallback="error", rebuild="never"):
            yield
    else:
        with policy(engines=(), fallback="eager", rebuild="never"), warnings.catch_warnings():
            warnings.simplefilter("ignore", FallbackWarning)  # requested
            yield


class _Measurement:
    """The times of one program on one set of inputs."""

    def __init__(
        self, program: ExportedProgram, flat: Sequence[Any], device: torch.device, calls: int
    ) -> None:
        args, kwargs = call_arguments(program, flat)
        module = module_of(program)
        self._device, self._calls = device, calls
        self.blocks: list[BlockProfile] = []
        self.call_seconds = seconds_per_call(lambda: module(*args, **kwargs), device, calls)
        self.outside = self._outside(module, flat)
        measure = self._block

        class Tap(torch.fx.Interpreter):
            def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
                if is_engine_operator(target):
                    measure(*args)
                return super().call_function(target, args, kwargs)

        Tap(module).run(*flat, enable_io_processing=False)

    def _outside(self, module: torch.fx.GraphModule, flat: Sequence[Any]) -> BlockProfile:
        times = NodeTimes(module, self._device)
        for call in range(WARM_UP + self._calls):
            if call == WARM_UP:
                times.forget()
            times.run_once(flat)
        blocks = {node.name for node in module.graph.nodes if is_engine_operator(node.target)}
        layers = tuple(layer for layer in times.layers() if layer.name not in blocks)
        nodes = source_nodes(module.graph)
        used = {layer.name: nodes[layer.name] for layer in layers}
        return BlockProfile("outside of the blocks", EAGER, None, layers, used)

    def _block(
        self, inputs: Sequence[torch.Tensor], blobs: Sequence[torch.Tensor], text: str
    ) -> None:
        block = load_block(blobs, text)
        selection = block.selection(inputs[0].device)
        session = selection.session
        with policy(cuda_graphs=0):  # a graph that is replayed has no layers to time
            timed = block.selection(inputs[0].device).session
        shapes = output_shapes(block.signature, inputs)
        seconds = seconds_per_call(lambda: session.run(inputs, shapes), self._device, self._calls)
        layers: list[LayerTime] = []
        reason = ""
        if timed.supports_layer_times:
            try:
                layers = timed.layer_times(inputs, shapes, calls=self._calls)
            except PortrtError:
                raise
            except Exception as err:
                raise EngineError(
                    f"the profiler of {selection.name} failed in {block.stored.name}: {err}",
                    "times of layers",
                    "profile with another engine, or with engine='eager', and report it",
                ) from err
        else:
            reason = f"{selection.name} does not report the times of its layers"
        nodes = _source(block.stored)
        if not nodes:
            reason = reason or "the source was stripped: no layer is mapped to nodes"
        known = tuple(_mapped(layer, nodes) for layer in layers)
        self.blocks.append(
            BlockProfile(block.stored.name, selection.name, seconds, known, nodes, reason)
        )


def seconds_per_call(run: Callable[[], Any], device: torch.device, calls: int) -> float:
    """Return the median time of a call, with its work on the device, without warm-up calls."""
    found = []
    for _ in range(WARM_UP + calls):
        wait(device)
        started = time.perf_counter()
        run()
        wait(device)
        found.append(time.perf_counter() - started)
    return statistics.median(found[WARM_UP:])


def wait(device: torch.device) -> None:
    """Wait for the device's work, if it is a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _source(block: StoredBlock) -> dict[str, SourceNode]:
    if not block.has_source:
        return {}
    return source_nodes(program_from_source(f"the source of {block.name}", block.source()).graph)


def _mapped(layer: LayerTime, nodes: Mapping[str, SourceNode]) -> LayerTime:
    """Restrict a layer to nodes of this source, and escape its texts."""
    known = tuple(name for name in layer.nodes if name in nodes)
    return replace(
        layer,
        name=printable(layer.name),
        kind=printable(layer.kind),
        nodes=known if layer.nodes else nodes_of_layer(layer.name, list(nodes)),
        detail=printable(layer.detail),
    )


def _input(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, torch.Tensor):
        return {"name": name, "dtype": type(value).__name__, "shape": None}
    dtype, _, _ = describe(value).partition(" ")
    return {"name": name, "dtype": dtype, "shape": list(value.shape)}


def _machine(device: torch.device, blocks: Sequence[BlockProfile]) -> dict[str, str]:
    """Describe the device, and the libraries that ran a block."""
    cuda = device.type == "cuda"
    found = {
        "device": torch.cuda.get_device_name(device) if cuda else platform.machine(),
        "torch": torch.__version__,
        "threads": str(torch.get_num_threads()),
    }
    for name in dict.fromkeys(block.backend for block in blocks if block.backend != EAGER):
        found[name] = registry.runtime(name).can_run(device.type).reason
    return found
