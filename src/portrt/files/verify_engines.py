"""verify: compares every engine of a file that can run here with the source of its block."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from portrt import torch_internals
from portrt.engines import registry
from portrt.engines.base import OpenOptions
from portrt.engines.eager import SourceSession
from portrt.errors import BackendUnavailableError, EngineError, InputError, PortrtError
from portrt.format.archive import Archive, engine_calls
from portrt.format.manifest import EngineSpec, decode
from portrt.format.memory_map import map_file
from portrt.graphs.program_inputs import flat_signature
from portrt.numerics.compare import arithmetic_of, compare_outputs
from portrt.runtime.devices import device_by_name
from portrt.runtime.input_check import check_inputs, output_shapes
from portrt.runtime.load import load, verify_digests
from portrt.runtime.module import module_of
from portrt.runtime.op import register
from portrt.runtime.policy import CONTEXT, effective
from portrt.runtime.random_inputs import random_block_inputs
from portrt.runtime.stored_block import StoredBlock
from portrt.runtime.trust import host_code_verdict, trusts_host_code

logger = logging.getLogger(__name__)

Tensors = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class EngineCheck:
    """One engine of one block.

    Attributes:
        backend: Name of the backend.
        ran: Whether it ran here.
        reason: Why it did not run, or how it failed; else empty.
        outputs: For each output: "name", "max_abs" and "max_rel" (the largest difference, and the
            same relative to the largest value of the output), "tolerance" and "ok".
    """

    backend: str
    ran: bool
    reason: str
    outputs: tuple[Mapping[str, Any], ...]

    @property
    def ok(self) -> bool:
        """False if it ran and failed, or an output exceeded its tolerance."""
        return not self.ran or (not self.reason and all(row["ok"] for row in self.outputs))


@dataclass(frozen=True)
class BlockCheck:
    """One block.

    Attributes:
        name: Name of the block.
        reason: Why its engines could not be compared; else empty.
        engines: Its engines, in order of preference.
    """

    name: str
    reason: str
    engines: tuple[EngineCheck, ...]


@dataclass(frozen=True)
class Verification:
    """A file.

    Attributes:
        path: Path of the file.
        device: Device of the inputs.
        blocks: The blocks, in the order of their calls.
    """

    path: str
    device: str
    blocks: tuple[BlockCheck, ...]

    @property
    def ok(self) -> bool:
        """Return whether no engine that ran failed or exceeded its tolerance."""
        return all(engine.ok for block in self.blocks for engine in block.engines)

    @property
    def compared(self) -> int:
        """Number of engines that ran and were compared."""
        return sum(engine.ran for block in self.blocks for engine in block.engines)

    def to_json(self) -> dict[str, Any]:
        """Return plain values for `json.dumps`."""
        return {**dataclasses.asdict(self), "ok": self.ok, "compared": self.compared}


def verify(
    path: str | os.PathLike[str],
    inputs: Sequence[Any] | None = None,
    *,
    device: str = "cpu",
    seed: int = 0,
    progress: bool | None = None,
) -> Verification:
    """Compare every engine that can run here with the source of its block in PyTorch.

    The digests of all blobs are checked first. An engine that carries host code runs only if the
    active policy trusts it.

    Args:
        path: The file.
        inputs: The program's flat inputs, in call order: the sources run the whole program on them,
            and each block is compared on the inputs that it gets there. None generates random
            inputs for each block, of the opt sizes of its engines; integers are 0 or 1.
        device: Device of the inputs.
        seed: Seed of the random inputs.
        progress: Show a progress bar while digests are checked; None shows it on a terminal, for a
            large file.

    Raises:
        LoadError: The file is no torch.export archive, or damaged.
        PackageError: A manifest or a blob in it is damaged.
        InputError: The inputs are not those of the program.
        SettingsError: There is no such device here.
    """
    register()  # programs of engines in parts call the operator
    where = device_by_name(device)
    archive = Archive(os.fspath(path))
    calls = engine_calls(archive)
    verify_digests(archive, calls, progress)
    mapped = map_file(str(archive.path))
    with torch_internals.without_torch_noise(), torch.no_grad():
        blocks = [
            _Block(
                StoredBlock.mapped(call.manifest, call.blobs, mapped, verified=True),
                where,
            )
            for call in calls
        ]
        given = None if inputs is None else _inputs_of_blocks(path, inputs, blocks, device)
        found = []
        for block in blocks:
            wanted = given or {
                block.name: random_block_inputs(block.stored.signature, seed, device)
            }
            found.append(block.check(wanted.get(block.name)))
    return Verification(str(path), device, tuple(found))


class _Block:
    """A block of the file, whose engines are compared with its source on one device."""

    def __init__(self, stored: StoredBlock, device: torch.device) -> None:
        self.stored = stored
        self.name = stored.name
        self._device = device
        self._source: SourceSession | None = None

    def run_source(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Run the source in PyTorch.

        Raises:
            EngineError: The source was stripped, or fails.
        """
        if self._source is None:
            if not self.stored.has_source:
                raise EngineError(
                    f"{self.name} has no source: it was stripped",
                    "a source, which engines are compared with",
                    "use a file that was not stripped",
                )
            self._source = self.stored.source_session(self._device)
        return self._source.run(inputs, output_shapes(self.stored.signature, inputs))

    def check(self, inputs: Tensors | None) -> BlockCheck:
        """Compare every engine on these inputs."""
        engines = self.stored.manifest.engines
        try:
            if inputs is None:
                raise EngineError(f"{self.name} was not reached", "a call of it", "other inputs")
            check_inputs(self.stored.signature, inputs)
            wanted = self.run_source(inputs)
        except (EngineError, InputError) as err:
            idle = [EngineCheck(e.backend, False, err.happened, ()) for e in engines]
            return BlockCheck(self.name, err.happened, tuple(idle))
        checks = tuple(self._check_engine(engine, inputs, wanted) for engine in engines)
        return BlockCheck(self.name, "", checks)

    def _check_engine(
        self, engine: EngineSpec, inputs: Tensors, wanted: Sequence[torch.Tensor]
    ) -> EngineCheck:
        try:
            runtime = registry.runtime(engine.backend)
        except BackendUnavailableError as err:
            return EngineCheck(engine.backend, False, err.happened, ())
        kind = self._device.type
        policy = effective({}, CONTEXT.get())
        verdict = host_code_verdict(engine, policy, runtime.accepts(engine, self._device))
        if kind not in engine.requires["device"] or not verdict:
            wants = " or ".join(map(str, engine.requires["device"]))
            reason = verdict.reason or f"it takes {wants} tensors, the inputs are on {kind}"
            return EngineCheck(engine.backend, False, reason, ())
        try:
            options = OpenOptions(trusted_host_code=trusts_host_code(engine, policy))
            session = self.stored.open_engine(engine, self._device, options)
            found = session.run(inputs, [tuple(out.shape) for out in wanted])
        except PortrtError as err:
            return EngineCheck(engine.backend, True, err.happened, ())
        assert self._source is not None  # it gave what is wanted
        held = [*inputs, *self._source.weights]
        names = [spec.name for spec in self.stored.signature.outputs]
        precision, module = arithmetic_of(engine.backend, engine.build), self._source.module
        rows = compare_outputs(names, found, wanted, precision, module, held.copy)
        return EngineCheck(engine.backend, True, "", tuple(rows))


def _inputs_of_blocks(
    path: str | os.PathLike[str], inputs: Sequence[Any], blocks: Sequence[_Block], device: str
) -> dict[str, Tensors]:
    """Run the whole program by the sources, and collect the inputs of each block."""
    program = load(path)
    names = flat_signature(program)
    if len(inputs) != len(names):
        raise InputError(
            f"{len(inputs)} inputs were given",
            f"{len(names)}: {', '.join(names)}",
            "give one value for each flat input of the program, in that order",
        )
    by_name = {block.name: block for block in blocks}
    taken: dict[str, Tensors] = {}

    class Tap(torch.fx.Interpreter):
        def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
            if target is not torch.ops.portrt.execute_engine.default:
                return super().call_function(target, args, kwargs)
            block = by_name[decode(args[2]).name]
            taken[block.name] = tuple(args[0])
            return block.run_source(args[0])

    moved = [item.to(device) if isinstance(item, torch.Tensor) else item for item in inputs]
    Tap(module_of(program)).run(*moved, enable_io_processing=False)
    return taken
