"""rebuild: an engine for this machine, from the source that lies in the program; no model code."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from portrt import torch_internals
from portrt.compiler.backends import registry as builders
from portrt.compiler.building.check import Sample, check_engine
from portrt.compiler.building.engines import engines_of_block
from portrt.compiler.building.stored_precision import with_stored_precision
from portrt.compiler.building.tasks import EngineTask
from portrt.compiler.options.settings import Settings
from portrt.compiler.plan import Block, Engine, Plan
from portrt.engines import registry
from portrt.engines.eager import SourceSession, program_from_source
from portrt.errors import PortrtError
from portrt.format.manifest import Blob, EngineSpec, Manifest, check_digest
from portrt.runtime.input_check import output_shapes
from portrt.runtime.policy import Policy
from portrt.runtime.random_inputs import random_block_inputs
from portrt.runtime.trust import mark_trusted
from portrt.targets import backends
from portrt.verdict import Verdict
from portrt.weights import WeightsImage, image_from_tensors

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rebuilt:
    """An engine that is not in the program.

    Attributes:
        spec: Its entry, as a manifest would have it. The index of its blob is negative.
        data: Its bytes, 1-D uint8 on the CPU.
    """

    spec: EngineSpec
    data: torch.Tensor


def candidates(device: torch.device, policy: Policy) -> Iterator[str]:
    """Names of the backends that can build and run an engine here, in order of preference."""
    for name in backends.names():
        runtime, builder = registry.runtime(name), builders.builder(name)
        allowed = policy.engines is None or name in policy.engines
        if allowed and runtime.can_run(device.type) and builder.can_build():
            yield name


def rebuild(
    manifest: Manifest, blobs: Sequence[torch.Tensor], device: torch.device, policy: Policy
) -> tuple[Rebuilt | None, tuple[tuple[str, Verdict], ...]]:
    """Build the first engine that this machine can build and run, check it, and keep it cached.

    It has the precision of the block's stored engines.

    Args:
        manifest: The block; it has its source.
        blobs: The blobs of its call.
        device: Where the inputs are.
        policy: Which backends may run.

    Returns:
        The engine, or None, and a verdict for each backend that was tried.

    Raises:
        PackageError: The source is not what the manifest describes.
    """
    assert manifest.source is not None
    check_digest(
        blobs[manifest.source.index].numpy(), manifest.source, f"the source of {manifest.name}"
    )
    if manifest.weights is not None:  # an engine may keep them for good
        label = f"the weights of {manifest.name}"
        check_digest(blobs[manifest.weights.index].numpy(), manifest.weights, label)
    verdicts: list[tuple[str, Verdict]] = []
    for name in candidates(device, policy):
        index = backends.names().index(name) + 1
        task = EngineTask(builders.builder(name), Settings(require_engines=True))
        found = _in_thread(manifest, blobs, device, task)
        if isinstance(found, Engine):
            data = torch.frombuffer(bytearray(found.data), dtype=torch.uint8)
            spec = EngineSpec.of(found, Blob.of(-index, found.data))
            mark_trusted(spec.data.sha256)  # it was built here
            return Rebuilt(spec, data), tuple(verdicts)
        logger.warning("%s was not rebuilt for %s: %s", name, manifest.name, found.reason)
        verdicts.append((f"{name}, rebuilt", found))
    return None, tuple(verdicts)


def _in_thread(
    manifest: Manifest, blobs: Sequence[torch.Tensor], device: torch.device, task: EngineTask
) -> Engine | Verdict:
    """In a thread of its own, since the caller is within a torch operator, whose modes would reach
    the export and the translation."""
    results: list[Engine | Verdict] = []

    def run() -> None:
        try:
            with torch_internals.without_torch_noise():
                results.append(_build_and_check(manifest, blobs, device, task))
        except PortrtError as err:
            results.append(
                Verdict.no("build_failed", f"it could not be rebuilt: {err.happened}", err.remedy)
            )
        except Exception as err:  # of torch's exporter: the source can still run
            logger.exception("rebuilding %s", manifest.name)
            reason = f"it could not be rebuilt: {type(err).__name__}: {err}"
            results.append(Verdict.no("build_failed", reason))

    thread = threading.Thread(target=run, name="portrt-rebuild")
    thread.start()
    thread.join()
    return results[0]


def _build_and_check(
    manifest: Manifest, blobs: Sequence[torch.Tensor], device: torch.device, task: EngineTask
) -> Engine | Verdict:
    assert manifest.source is not None
    settings = with_stored_precision(task.settings, manifest.engines, task.builder.name)
    task = EngineTask(task.builder, settings)
    source = blobs[manifest.source.index]
    image = image_from_tensors({})
    if manifest.weights is not None:
        image = blobs[manifest.weights.index]
    weights = WeightsImage(image)
    block = _block(manifest, source)
    tensors = {name: weights.tensor(name) for name in block.weights}
    session = SourceSession(manifest.signature, source, manifest.source_weights, weights, device)
    samples = [_sample(manifest, session, bound, device) for bound in ("opt", "min")]
    plan = Plan(block.program, block.program.graph_module, (block,), tensors, ())
    (engine,), _ = engines_of_block(plan, block, image, [task], samples[0])
    check = engine.check or {}
    if "outputs" not in check:
        return Verdict.no(
            "check_failed", f"it could not be checked: {check.get('skipped', 'no reason given')}"
        )
    check_engine(block, engine, image, samples[1], accept=False)
    return engine


def _block(manifest: Manifest, source: torch.Tensor) -> Block:
    """The block, as `partition` made it when the program was compiled."""
    return Block(
        name=manifest.name,
        program=program_from_source(manifest.name, source),
        weights=manifest.source_weights,
        inputs=manifest.inputs,
        outputs=manifest.outputs,
        node_count=manifest.node_count,
    )


def _sample(manifest: Manifest, session: SourceSession, bound: str, device: torch.device) -> Sample:
    """Random inputs of the best or the smallest sizes, and what the source makes of them.

    Raises:
        EngineError: The source fails on them.
    """
    inputs = random_block_inputs(manifest.signature, 0, device, bound)
    outputs = session.run(inputs, output_shapes(manifest.signature, inputs))
    return Sample(inputs, tuple(outputs))
