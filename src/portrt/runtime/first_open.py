"""check="first-open": engines that could not be checked when built are checked where they run."""

from __future__ import annotations

import json
import logging
import platform
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from portrt.cache.key import Key
from portrt.cache.store import open_cache
from portrt.engines import registry
from portrt.engines.base import Session
from portrt.engines.eager import SourceSession
from portrt.errors import EngineError, OutOfProfileError
from portrt.format.manifest import EngineSpec, Manifest, Signature
from portrt.numerics.compare import TOLERANCES, arithmetic_of, compare_outputs
from portrt.runtime.input_check import output_shapes
from portrt.runtime.random_inputs import random_block_inputs
from portrt.runtime.stored_block import StoredBlock
from portrt.verdict import YES, Verdict

logger = logging.getLogger(__name__)

_REMEDY = "compile the model again and report it, or run with check='off'"


def first_open_verdict(
    block: StoredBlock, engine: EngineSpec, session: Session, device: torch.device
) -> Verdict:
    """Compare an engine with its source on random inputs, and return the verdict.

    The result is cached for this engine on machines of this kind. An engine that was compared when
    it was built is accepted without another comparison.

    Args:
        block: Block of the engine.
        engine: Manifest entry of the engine.
        session: The opened engine.
        device: Device that the engine runs on.

    Raises:
        PackageError: The source does not match its digest in the manifest.
    """
    if "outputs" in (engine.check or {}):
        return YES
    if not block.has_source:
        return Verdict.no(
            "source_missing",
            "it was never checked, and the source to compare it with was stripped",
            "use a file that has its sources, or run with check='off'",
        )
    key = _key(engine, block.manifest, device)
    cache = open_cache()
    cached = None if cache is None else cache.get(key)
    if cached is not None:
        rows = json.loads(cached[1])
    else:
        oracle = block.source_session(device)
        try:
            rows = list(compared(engine, session, oracle, block.signature, device))
        except EngineError as err:
            return Verdict.no(
                "check_failed", f"it could not be checked: {err.happened}", err.remedy
            )
        logger.info("checked the %s engine of %s: %s", engine.backend, block.name, rows)
        if cache is not None:
            meta = {"backend": engine.backend, "block": block.name}
            text = json.dumps(rows)
            cache.put(key, meta, lambda path: path.write_text(text, encoding="utf-8"))
    return _verdict(engine, block.name, rows)


def compared(
    engine: EngineSpec,
    session: Session,
    oracle: SourceSession,
    signature: Signature,
    device: torch.device,
) -> Iterator[dict[str, Any]]:
    for bound in ("opt", "min"):
        inputs = random_block_inputs(signature, 0, device, bound)
        shapes = output_shapes(signature, inputs)
        expected = oracle.run(inputs, shapes)
        try:
            actual = session.run(inputs, shapes)
        except OutOfProfileError:  # the smallest size is 0, and the source runs such calls
            if bound == "opt":
                raise
            continue
        names = [spec.name for spec in signature.outputs]
        source_inputs = [*inputs, *oracle.weights]
        precision, module = arithmetic_of(engine.backend, engine.build), oracle.module
        yield from compare_outputs(names, actual, expected, precision, module, source_inputs.copy)


def _verdict(engine: EngineSpec, block: str, rows: Sequence[dict[str, Any]]) -> Verdict:
    failed = next((row for row in rows if not row["ok"]), None)
    if failed is None:
        return YES
    reason = (
        f"its output {failed['name']!r} differs from the source: largest difference "
        f"{failed['max_abs']}, relative {failed['max_rel']} exceeds the tolerance "
        f"{failed['tolerance']}"
    )
    logger.warning("the %s engine of %s is rejected: %s", engine.backend, block, reason)
    return Verdict.no("check_failed", reason, _REMEDY)


def _key(engine: EngineSpec, manifest: Manifest, device: torch.device) -> Key:
    """Return the cache key: engine, weights and source, and all that affects kernel selection."""
    blobs = (*engine.blobs, manifest.weights, manifest.source)
    machine = [platform.system(), platform.machine(), torch.backends.cpu.get_cpu_capability()]
    if device.type == "cuda":
        machine += [torch.cuda.get_device_name(device), str(torch.version.cuda)]
    return Key.of(
        "check",
        {
            "engine": [None if blob is None else blob.sha256 for blob in blobs],
            "library": str(registry.runtime(engine.backend).can_run(device.type)),
            "machine": machine,
            "torch": str(torch.__version__),
            "tolerances": sorted((str(dtype), value) for dtype, value in TOLERANCES.items()),
        },
    )
