"""Engines of a block with other weights: which take them, and whether they compute the same."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from portrt.engines.base import Session
from portrt.engines.device_weights import weight_on
from portrt.engines.eager import SourceSession
from portrt.errors import EngineError, NoUsableEngineError
from portrt.format.manifest import EngineSpec, Manifest, decode, encode, parse
from portrt.runtime.choice import source_verdict
from portrt.runtime.first_open import compared
from portrt.runtime.new_weights.changes import differ
from portrt.runtime.new_weights.record import RECORD
from portrt.runtime.policy import CONTEXT, Policy, effective
from portrt.runtime.select import verdict_of
from portrt.runtime.selection import open_options
from portrt.runtime.stored_block import StoredBlock
from portrt.weights import WeightsImage

logger = logging.getLogger(__name__)

# (digest, device) -> a source without its weights: reading takes longer than the rest of an update.
_read: dict[tuple[str, torch.device], SourceSession] = {}
_MAX_READ = 16


@dataclass
class UpdatedBlock:
    """A block with other weights.

    Attributes:
        name: Its name.
        text: Its new manifest.
        kept: Indices of the blobs that its call keeps.
        stale: (backend, reason) of each engine that it loses.
        sessions: (index among the kept blobs, device) -> an opened engine.
        blobs: Names of the constants that are the kept blobs.
    """

    name: str
    text: str
    kept: list[int]
    stale: list[tuple[str, str]]
    sessions: dict[tuple[int, torch.device], Session] = field(default_factory=dict)
    blobs: list[str] = field(default_factory=list)


def updated_block(
    text: str,
    blobs: Sequence[torch.Tensor],
    old: WeightsImage | None,
    changed: Mapping[str, torch.Tensor],
    devices: Iterable[torch.device],
    *,
    check: bool,
) -> UpdatedBlock:
    """Give a block other weights.

    Args:
        text: Its manifest, with the digest of the new weights.
        blobs: The blobs of its call, with the new weights.
        old: The weights that it had.
        changed: Name in the image -> tensor, where the numbers are others.
        devices: Where its engines are compared with the source.
        check: Whether they are.

    Raises:
        NoUsableEngineError: Nothing is left that the policy allows to run.
        PackageError: The source or an engine does not match its digest.
    """
    manifest = decode(text)
    policy = effective(manifest.policy, CONTEXT.get())
    stored = StoredBlock(manifest, blobs)
    taken = _taken(manifest)
    own = {name: tensor for name, tensor in changed.items() if name in taken}
    stale: dict[int, str] = {}
    for place, engine in enumerate(manifest.engines):
        if reason := _stale(engine, manifest, old, own) if own else "":
            stale[place] = reason
    opened: dict[tuple[int, torch.device], Session] = {}
    checks: dict[int, Mapping[str, Any] | None] = {}
    if own:
        opened, checks = _opened(stored, devices, policy, stale, check=check)
    _require_one(manifest, policy, stale)
    entry = parse(text)
    for place, found in checks.items():
        entry["engines"][place]["check"] = found
    dropped = {blob.index for place in stale for blob in manifest.engines[place].blobs}
    kept = [index for index in range(manifest.blob_count) if index not in dropped]
    _renumber(entry, kept, stale)
    sessions = {
        (kept.index(index), device): session
        for (index, device), session in opened.items()
        if index in kept
    }
    gone = [(manifest.engines[place].backend, reason) for place, reason in stale.items()]
    return UpdatedBlock(manifest.name, encode(entry), kept, gone, sessions)


def _taken(manifest: Manifest) -> set[str]:
    return {*manifest.source_weights, *(n for e in manifest.engines for n in _weights_of(e))}


def _weights_of(engine: EngineSpec) -> set[str]:
    inner = () if engine.parts is None else engine.parts.engines
    return {*engine.weights, *(name for part in inner for name in part.engine.weights)}


def _stale(
    engine: EngineSpec,
    manifest: Manifest,
    old: WeightsImage | None,
    changed: Mapping[str, torch.Tensor],
) -> str:
    """Return why an engine does not follow these weights; "" if it reads them when it is opened."""
    assert old is not None
    taken = _weights_of(engine)
    # Without a record it is of a version that merged weights of equal numbers.
    merged = RECORD not in old
    inside = [name for name in manifest.source_weights if merged and name not in taken]
    for name in changed:
        if name not in taken:
            return f"it holds {name!r} itself"
        for other in inside:
            alike = old.entry(other)[:2] == old.entry(name)[:2]
            if alike and not differ(old.tensor(other), old.tensor(name)):
                return f"it has one copy of {name!r} and {other!r}"
        if not _is_like(old.tensor(name), changed[name]):
            return f"it was built for finite numbers, or positive indices, in {name!r}"
    return ""


def _is_like(old: torch.Tensor, new: torch.Tensor) -> bool:
    """Return whether rewrites that hold for the old numbers hold for the new ones."""
    if not new.numel() or new.dtype == torch.bool:
        return True
    if new.is_floating_point() or new.is_complex():
        if new.element_size() == 1:
            return True
        return bool(new.isfinite().all()) or not bool(old.isfinite().all())
    if not new.dtype.is_signed or new.dtype == torch.int8:
        return True
    return int(new.min()) >= 0 or int(old.min()) < 0


def _opened(
    stored: StoredBlock,
    devices: Iterable[torch.device],
    policy: Policy,
    stale: dict[int, str],
    *,
    check: bool,
) -> tuple[dict[tuple[int, torch.device], Session], dict[int, Mapping[str, Any] | None]]:
    """Open the engines that run here, and compare them; what differs is added to `stale`."""
    sessions: dict[tuple[int, torch.device], Session] = {}
    checks: dict[int, Mapping[str, Any] | None] = {}
    for place, engine in enumerate(stored.manifest.engines):
        checks[place] = None
        if place in stale:
            continue
        device = next((d for d in devices if verdict_of(engine, d, policy)), None)
        if device is None:
            continue
        try:
            session = stored.open_engine(engine, device, open_options(engine, policy))
        except EngineError as err:
            logger.info("the %s engine of %s is not open: %s", engine.backend, stored.name, err)
            continue
        sessions[engine.data.index, device] = session
        if not check or not stored.has_source:
            continue
        source = _source(stored, device, sessions)
        try:
            rows = list(compared(engine, session, source, stored.signature, device))
        except EngineError as err:
            logger.info("the %s engine of %s: %s", engine.backend, stored.name, err)
            continue
        checks[place] = {"device": device.type, "outputs": rows}
        if failed := next((row for row in rows if not row["ok"]), None):
            stale[place] = (
                f"its output {failed['name']!r} differs from PyTorch's by {failed['max_rel']} "
                f"with the new weights, and {failed['tolerance']} is allowed"
            )
    return sessions, checks


def _source(
    stored: StoredBlock, device: torch.device, sessions: dict[tuple[int, torch.device], Session]
) -> SourceSession:
    assert stored.manifest.source is not None
    key = (stored.manifest.source.index, device)
    found = sessions.get(key)
    if not isinstance(found, SourceSession):
        found = sessions[key] = _opened_source(stored, device)
    return found


def _opened_source(stored: StoredBlock, device: torch.device) -> SourceSession:
    """Open the source; one that an earlier update had read is not read again."""
    assert stored.manifest.source is not None
    key = (stored.manifest.source.sha256, device)
    read = _read.get(key)
    if read is None:
        made = stored.source_session(device)
        read = copy.copy(made)
        read._image, read._weights = None, []
        if len(_read) >= _MAX_READ:
            _read.clear()
        _read[key] = read
        return made
    stored.source()  # checks the digest
    made = copy.copy(read)
    image = made._image = stored.weights
    for_source = stored.manifest.source_weights if image is not None else ()
    made._weights = [weight_on(image, name, device) for name in for_source if image is not None]
    return made


def _require_one(manifest: Manifest, policy: Policy, stale: Mapping[int, str]) -> None:
    """Raise NoUsableEngineError if all engines are stale, and neither source nor build follows."""
    if not stale or len(stale) < len(manifest.engines):
        return
    has_source = manifest.source is not None
    if has_source and policy.rebuild == "missing":
        return
    verdict = source_verdict(has_source, policy.fallback)
    if verdict:
        return
    lines = "".join(
        f"\n    {manifest.engines[place].backend}: {reason}" for place, reason in stale.items()
    )
    raise NoUsableEngineError(
        f"no engine of {manifest.name} follows the new weights, and {verdict.reason}:{lines}",
        "an engine that reads its weights from the program, or a source that may run",
        "compile again, or allow fallback='eager' or rebuild='missing'",
    )


def _renumber(entry: dict[str, Any], kept: Sequence[int], stale: Mapping[int, str]) -> None:
    """Drop the stale engines of a manifest, and number the blobs that are kept."""
    engines = entry["engines"]
    entry["engines"] = [item for place, item in enumerate(engines) if place not in stale]
    parts = [
        part for item in entry["engines"] for part in (item.get("parts") or {}).get("engines", ())
    ]
    for holder in (entry, *entry["engines"], *parts):
        for key in ("weights", "source", "data"):
            if isinstance(held := holder.get(key), dict):
                held["blob"] = kept.index(held["blob"])
    entry["blob_count"] = len(kept)
