"""tune: times the engines of a file on this machine, and writes their order into it."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from portrt import torch_internals
from portrt.arguments import GOALS, one_of
from portrt.engines.base import OpenOptions, Session
from portrt.errors import EngineError, PackageError
from portrt.files.verify_engines import BlockCheck, verify
from portrt.format.editor import CallEditor, ProgramEditor
from portrt.format.engine_spec import EngineSpec
from portrt.format.memory_map import map_file
from portrt.runtime.devices import device_by_name
from portrt.runtime.policy import CONTEXT, effective
from portrt.runtime.stored_block import StoredBlock
from portrt.runtime.timing import Figure, conditions, measure, ratios, table
from portrt.runtime.trust import trusts_host_code

logger = logging.getLogger(__name__)

SOURCE = "PyTorch"


@dataclass(frozen=True)
class BlockTuning:
    """One block.

    Attributes:
        name: Name of the block.
        order: Backends of its engines, best first.
        figures: Label -> a figure for each profile; the source's label is "PyTorch".
        text: The figures as a table.
    """

    name: str
    order: tuple[str, ...]
    figures: Mapping[str, tuple[Figure, ...]]
    text: str


def tune(
    path: str | os.PathLike[str],
    optimize_for: str = "latency",
    *,
    output: str | os.PathLike[str] | None = None,
    device: str = "cpu",
    seconds: float = 10.0,
    progress: bool | None = None,
) -> tuple[BlockTuning, ...]:
    """Time the engines of a file on this machine, and write their order and figures into it.

    Every engine that can run here is first compared with its source in PyTorch; one whose results
    differ becomes the last choice, as do those that cannot run here. They are timed in turn at the
    opt sizes of each optimization profile.

    Args:
        path: The file.
        optimize_for: "latency", or "throughput" for several calls at once, or "size".
        output: The file to write; None replaces `path`, when the new file is complete.
        device: Device of the inputs.
        seconds: Time for measuring, of all blocks together.
        progress: Show a progress bar while writing; None shows it on a terminal, for a large file.

    Raises:
        LoadError: The file is no torch.export archive, or damaged.
        PackageError: A manifest or a blob in it is damaged, or it calls no engine.
        SettingsError: `optimize_for` is unknown, or there is no such device here.
        SaveError: The file cannot be written; what was there is unchanged.
    """
    one_of("optimize_for", optimize_for, GOALS)
    goal: Any = optimize_for
    editor = ProgramEditor(os.fspath(path))
    editor.check_editable()
    where = device_by_name(device)
    checks = verify(path, device=device, progress=progress).blocks
    mapped = map_file(str(editor.archive.path))
    share = seconds / max(len(editor.calls), 1)
    with torch_internals.without_torch_noise():
        found = tuple(
            _tuned(call, check, mapped, goal, where, share)
            for call, check in zip(editor.calls, checks, strict=True)
        )
    editor.write(Path(path if output is None else output), progress)
    return found


def _tuned(
    call: CallEditor, check: BlockCheck, mapped: Any, goal: Any, device: torch.device, share: float
) -> BlockTuning:
    """Order the engines of a call, in its manifest."""
    stored = StoredBlock.mapped(call.manifest(), call.stored_blobs(), mapped, verified=True)
    engines = stored.manifest.engines
    entries: list[dict[str, Any]] = call.entry["engines"]
    labels = [f"{engine.backend} ({place})" for place, engine in enumerate(engines, 1)]
    if goal == "size":
        keys = [float(sum(blob.size for blob in engine.blobs)) for engine in engines]
        measured = [{"goal": goal, "bytes": int(size)} for size in keys]
        return _written(call, entries, keys, dict(enumerate(measured)), {}, "")
    sessions = _sessions(stored, labels, check, device)
    figures = measure(stored.signature, sessions, goal, device=device, budget_s=share)
    own = {label: items for label, items in figures.items() if label != SOURCE}
    mean, under = ratios(own), conditions(goal)
    keys = [mean.get(label, float("inf")) for label in labels]
    notes = {
        place: {
            **under,
            "ratio": round(mean[label], 3),
            "sizes": [figure.to_json() for figure in own[label]],
        }
        for place, label in enumerate(labels)
        if label in own
    }
    text = table(stored.name, figures, goal) if figures else f"{stored.name}: no engine ran"
    return _written(call, entries, keys, notes, figures, text)


def _written(
    call: CallEditor,
    entries: list[dict[str, Any]],
    keys: list[float],
    notes: Mapping[int, dict[str, Any]],
    figures: Mapping[str, list[Figure]],
    text: str,
) -> BlockTuning:
    for place, note in notes.items():
        entries[place]["build"] = {**entries[place]["build"], "measured": note}
    order = sorted(range(len(entries)), key=keys.__getitem__)
    call.entry["engines"] = [entries[place] for place in order]
    backends = tuple(str(entries[place]["backend"]) for place in order)
    return BlockTuning(call.name, backends, {k: tuple(v) for k, v in figures.items()}, text)


def _sessions(
    stored: StoredBlock, labels: list[str], check: BlockCheck, device: torch.device
) -> dict[str, Session]:
    """Open what can be timed: engines that ran with the source's results, and the source."""
    found: dict[str, Session] = {}
    if check.reason:
        logger.warning("the engines of %s are not compared: %s", stored.name, check.reason)
    for label, engine, state in zip(labels, stored.manifest.engines, check.engines, strict=True):
        if not state.ok or not (state.ran or check.reason):
            why = state.reason or "its results differ from those of the source"
            logger.warning("%s of %s is the last choice: %s", label, stored.name, why)
            continue
        session = _opened(stored, engine, device)
        if session is not None:
            found[label] = session
    if stored.has_source:
        found[SOURCE] = stored.source_session(device)
    return found


def _opened(stored: StoredBlock, engine: EngineSpec, device: torch.device) -> Session | None:
    trusted = trusts_host_code(engine, effective({}, CONTEXT.get()))
    try:
        return stored.open_engine(engine, device, OpenOptions(trusted_host_code=trusted))
    except (EngineError, PackageError) as err:
        logger.warning("the %s engine of %s is not timed: %s", engine.backend, stored.name, err)
        return None
