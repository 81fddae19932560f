"""Rebuild: an engine for this machine from the stored source, without the model's code."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch

from portrt import torch_internals
from portrt.compiler.backends import registry as builders
from portrt.compiler.building.check import Sample, check_engine
from portrt.compiler.building.source_plan import plan_from_source
from portrt.compiler.building.stored_precision import with_stored_precision
from portrt.compiler.building.tasks import EngineTask, default_names
from portrt.compiler.options.settings import Settings
from portrt.compiler.parts.engines import engine_of_block
from portrt.compiler.plan import Engine
from portrt.engines import registry
from portrt.engines.eager import SourceSession
from portrt.errors import PortrtError
from portrt.format.manifest import Blob, EngineSpec, Signature
from portrt.runtime.input_check import output_shapes
from portrt.runtime.policy import Policy
from portrt.runtime.random_inputs import random_block_inputs
from portrt.runtime.stored_block import StoredBlock
from portrt.runtime.trust import mark_trusted
from portrt.targets import backends
from portrt.verdict import Verdict

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rebuilt:
    """An engine that is not stored in the program.

    Attributes:
        spec: Its manifest entry; the index of its first blob is negative.
        blobs: Index -> bytes of each of its blobs, 1-D uint8 on the CPU.
    """

    spec: EngineSpec
    blobs: Mapping[int, torch.Tensor]

    def bytes_of(self, blob: Blob) -> torch.Tensor:
        """Return the bytes of a blob."""
        return self.blobs[blob.index]


def candidates(device: torch.device, policy: Policy, stored: Iterable[str] = ()) -> Iterator[str]:
    """Yield the backends that can build and run an engine here, in order of preference.

    Args:
        device: Device of the inputs.
        policy: Policy that restricts the backends.
        stored: Backends of the block's engines, which come first.
    """
    allowed = policy.engines
    if allowed is None:
        allowed = (*stored, *default_names(device.type))
    known = backends.names()
    first = [name for name in dict.fromkeys(stored) if name in known]
    for name in dict.fromkeys((*first, *known)):
        runtime, builder = registry.runtime(name), builders.builder(name)
        if name in allowed and runtime.can_run(device.type) and builder.can_build():
            yield name


def can_build(name: str, device: torch.device) -> Verdict:
    """Return whether a backend can build engines here, and run them on tensors of a device."""
    return registry.runtime(name).can_run(device.type) and builders.builder(name).can_build()


def rebuild(
    block: StoredBlock, device: torch.device, policy: Policy
) -> tuple[Rebuilt | None, tuple[tuple[str, Verdict], ...]]:
    """Build the first engine that this machine can build and run, check it, and cache it.

    It has the precision of the block's stored engines.

    Args:
        block: Block with its source.
        device: Device of the inputs.
        policy: Policy that restricts the backends.

    Returns:
        The engine, or None, and a verdict for each backend that was tried.

    Raises:
        PackageError: The source or the weights do not match their digests in the manifest.
    """
    block.source()
    block.check_weights()  # an engine may contain copies of them
    verdicts: list[tuple[str, Verdict]] = []
    stored = [engine.backend for engine in block.manifest.engines]
    for name in candidates(device, policy, stored):
        index = backends.names().index(name) + 1
        task = EngineTask(builders.builder(name), Settings(require_engines=True))
        found = _in_thread(block, device, task)
        if isinstance(found, Engine):
            spec, datas = found.stored(-index)
            for blob in spec.blobs:
                mark_trusted(blob.sha256)  # it was built here
            blobs = {
                blob.index: torch.frombuffer(bytearray(data), dtype=torch.uint8)
                for blob, data in zip(spec.blobs, datas, strict=True)
            }
            return Rebuilt(spec, blobs), tuple(verdicts)
        logger.warning("%s was not rebuilt for %s: %s", name, block.name, found.reason)
        verdicts.append((f"{name}, rebuilt", found))
    return None, tuple(verdicts)


def _in_thread(block: StoredBlock, device: torch.device, task: EngineTask) -> Engine | Verdict:
    """Build and check in a separate thread.

    The caller is inside a torch operator, whose modes would affect export and translation.
    """
    results: list[Engine | Verdict] = []

    def run() -> None:
        try:
            with torch_internals.without_torch_noise():
                results.append(_build_and_check(block, device, task))
        except PortrtError as err:
            results.append(
                Verdict.no("build_failed", f"it could not be rebuilt: {err.happened}", err.remedy)
            )
        except Exception as err:  # any failure of torch's exporter: the source can still run
            logger.exception("rebuilding %s failed", block.name)
            reason = f"it could not be rebuilt: {type(err).__name__}: {err}"
            results.append(Verdict.no("build_failed", reason))

    thread = threading.Thread(target=run, name="portrt-rebuild")
    thread.start()
    thread.join()
    return results[0]


def _build_and_check(
    stored: StoredBlock, device: torch.device, task: EngineTask
) -> Engine | Verdict:
    engines = stored.manifest.engines
    settings = with_stored_precision(task.settings, engines, task.builder.name)
    task = EngineTask(task.builder, settings)
    on = device if task.builder.input == "program" else torch.device("cpu")
    plan = plan_from_source(stored, device=on)
    (block,) = plan.blocks
    session = stored.source_session(device)
    samples = [_sample(stored.signature, session, bound, device) for bound in ("opt", "min")]
    engine = engine_of_block(plan.tensors, block, stored.image, task, samples[0])
    check = engine.check or {}
    if "outputs" not in check:
        return Verdict.no(
            "check_failed", f"it could not be checked: {check.get('skipped', 'no reason given')}"
        )
    check_engine(block, engine, stored.image, samples[1], accept=False)
    return engine


def _sample(
    signature: Signature, session: SourceSession, bound: str, device: torch.device
) -> Sample:
    """Return random inputs of the opt or the min sizes, and what the source returns for them.

    Raises:
        EngineError: The source fails on them.
    """
    inputs = random_block_inputs(signature, 0, device, bound)
    outputs = session.run(inputs, output_shapes(signature, inputs))
    return Sample(inputs, tuple(outputs))
