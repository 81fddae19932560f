"""check="first-open": what could not be checked where it was built is checked where it runs."""

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
from portrt.errors import EngineError
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
    """Whether an engine gives the numbers of its source, on random inputs.

    The result is kept in the cache, for this engine on machines like this one.

    Args:
        block: Whose engine it is.
        engine: Yes at once where it was compared when it was built.
        session: The engine, opened.
        device: Where the engine runs.

    Raises:
        PackageError: The source is not what the manifest describes.
    """
    if "outputs" in (engine.check or {}):
        return YES
    if not block.has_source:
        return Verdict.no(
            "source_missing",
            "it was never checked, and the source to check it with was stripped",
            "use a file that has its sources, or run with check='off'",
        )
    key = _key(engine, block.manifest, device)
    cache = open_cache()
    known = None if cache is None else cache.get(key)
    if known is not None:
        rows = json.loads(known[1])
    else:
        oracle = block.source_session(device)
        try:
            rows = list(_compared(engine, session, oracle, block.signature, device))
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


def _compared(
    engine: EngineSpec,
    session: Session,
    oracle: SourceSession,
    signature: Signature,
    device: torch.device,
) -> Iterator[dict[str, Any]]:
    for bound in ("opt", "min"):
        inputs = random_block_inputs(signature, 0, device, bound)
        shapes = output_shapes(signature, inputs)
        wanted = oracle.run(inputs, shapes)
        found = session.run(inputs, shapes)
        names = [spec.name for spec in signature.outputs]
        held = [*inputs, *oracle.weights]
        precision, module = arithmetic_of(engine.backend, engine.build), oracle.module
        rows = compare_outputs(names, found, wanted, precision, module, held.copy)
        yield from rows


def _verdict(engine: EngineSpec, block: str, rows: Sequence[dict[str, Any]]) -> Verdict:
    worse = next((row for row in rows if not row["ok"]), None)
    if worse is None:
        return YES
    reason = (
        f"it gives other numbers than its source for {worse['name']!r}: largest difference "
        f"{worse['max_abs']}, relative {worse['max_rel']}, and up to {worse['tolerance']} will do"
    )
    logger.warning("the %s engine of %s does not run: %s", engine.backend, block, reason)
    return Verdict.no("check_failed", reason, _REMEDY)


def _key(engine: EngineSpec, manifest: Manifest, device: torch.device) -> Key:
    """The engine with its weights and source, and what decides which kernels compute."""
    held = (engine.data, manifest.weights, manifest.source)
    machine = [platform.system(), platform.machine(), torch.backends.cpu.get_cpu_capability()]
    if device.type == "cuda":
        machine += [torch.cuda.get_device_name(device), str(torch.version.cuda)]
    return Key.of(
        "check",
        {
            "engine": [None if blob is None else blob.sha256 for blob in held],
            "library": str(registry.runtime(engine.backend).can_run(device.type)),
            "machine": machine,
            "torch": str(torch.__version__),
            "tolerances": sorted((str(dtype), value) for dtype, value in TOLERANCES.items()),
        },
    )
