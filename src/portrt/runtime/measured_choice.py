"""select="measured": the engine that is the fastest here, for each optimization profile."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from typing import Any, TypeGuard

import torch

from portrt.cache.key import Key
from portrt.cache.store import open_cache
from portrt.engines import registry
from portrt.engines.base import LayerTime, Session
from portrt.format.dimensions import Dimension
from portrt.format.engine_spec import EngineSpec
from portrt.format.signature import Signature
from portrt.runtime.stored_block import StoredBlock
from portrt.runtime.timing import conditions, measure, profile_count

logger = logging.getLogger(__name__)

_BUDGET_S = 3.0
_MAX_KNOWN_SIZES = 1024

Opened = Sequence[tuple[EngineSpec, Session]]
# For each engine the seconds of a call at each profile.
Times = list[list[float]]


def fastest(
    block: StoredBlock, opened: Opened, device: torch.device
) -> tuple[Session, tuple[int, ...]]:
    """Return a session that runs the fastest engine for the sizes of a call.

    The times are those in the file, if they were taken on a CPU of this name with as many threads;
    else those in the cache; else they are taken now, and cached.

    Args:
        block: The block.
        opened: Its engines that can run here, in order of preference.
        device: Device of the inputs.

    Returns:
        The session, and the position in `opened` of the engine for each profile.
    """
    times = _stored(block, opened, device) or _cached(block, opened, device)
    count = profile_count(block.signature)
    places = range(len(opened))
    chosen = tuple(min(places, key=lambda place: times[place][p]) for p in range(count))
    names = [opened[place][0].backend for place in chosen]
    logger.info("%s runs as %s, by measurement", block.name, " / ".join(names))
    if len(set(chosen)) == 1:
        return opened[chosen[0]][1], chosen
    return SessionBySizes(block.signature, [opened[place][1] for place in chosen]), chosen


def _stored(block: StoredBlock, opened: Opened, device: torch.device) -> Times | None:
    """Return the times in the file; None unless all of them are of a machine like this one."""
    here = conditions("latency")
    found: list[list[Any]] = []
    for engine, _ in opened:
        entry = engine.build.get("measured")
        if device.type != "cpu" or not isinstance(entry, dict):
            return None
        if any(entry.get(key) != value for key, value in here.items()):
            return None
        sizes = entry.get("sizes")
        found.append([s.get("seconds") for s in sizes] if _are_mappings(sizes) else [])
    return found if _is_valid(found, opened, profile_count(block.signature)) else None


def _are_mappings(value: Any) -> TypeGuard[list[dict[str, Any]]]:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _is_valid(times: Any, opened: Opened, count: int) -> bool:
    """Return whether these are times of these engines; files and caches may hold anything."""
    return (
        isinstance(times, list)
        and len(times) == len(opened)
        and all(isinstance(own, list) and len(own) == count for own in times)
        and all(type(item) is float and item > 0 for own in times for item in own)
    )


def _cached(block: StoredBlock, opened: Opened, device: torch.device) -> Times:
    count = profile_count(block.signature)
    key = _key(block, opened, device)
    cache = open_cache()
    cached = None if cache is None else cache.get(key)
    if cached is not None:
        times: Times = json.loads(cached[1])
        if _is_valid(times, opened, count):
            return times
    sessions = {str(place): session for place, (_, session) in enumerate(opened)}
    figures = measure(block.signature, sessions, "latency", device=device, budget_s=_BUDGET_S)
    times = [
        [figure.seconds for figure in figures.get(label, ())] or [math.inf] * count
        for label in sessions
    ]
    if cache is not None and len(figures) == len(opened):
        text, meta = json.dumps(times), {"backend": opened[0][0].backend, "block": block.name}
        cache.put(key, meta, lambda path: path.write_text(text, encoding="utf-8"))
    return times


def _key(block: StoredBlock, opened: Opened, device: torch.device) -> Key:
    machine = conditions("latency")
    if device.type == "cuda":
        machine["gpu"] = torch.cuda.get_device_name(device)
    libraries = [str(registry.runtime(e.backend).can_run(device.type)) for e, _ in opened]
    return Key.of(
        "measured",
        {
            "engines": [blob.sha256 for engine, _ in opened for blob in engine.blobs],
            "shapes": [spec.to_json() for spec in block.signature.inputs],
            "libraries": libraries,
            "machine": machine,
        },
    )


class SessionBySizes(Session):
    """Runs one session for the sizes of each optimization profile; of others, that of the first.

    Args:
        signature: Inputs of the block.
        sessions: The session for each profile.
    """

    def __init__(self, signature: Signature, sessions: Sequence[Session]) -> None:
        self._sessions = list(sessions)
        self._axes = [
            (index, axis, size.profiles)
            for index, spec in enumerate(signature.inputs)
            for axis, size in enumerate(spec.shape)
            if isinstance(size, Dimension) and size.profiles
        ]
        self._known: dict[tuple[int, ...], Session] = {}
        self.supports_layer_times = all(item.supports_layer_times for item in sessions)

    def run(
        self, inputs: Sequence[torch.Tensor], shapes: Sequence[tuple[int, ...]]
    ) -> list[torch.Tensor]:
        """Run once; see `Session`."""
        return self._session(inputs).run(inputs, shapes)

    def layer_times(
        self, inputs: Sequence[torch.Tensor], shapes: Sequence[tuple[int, ...]], *, calls: int
    ) -> list[LayerTime]:
        """Return the execution times of the layers of the engine for these sizes."""
        return self._session(inputs).layer_times(inputs, shapes, calls=calls)

    def _session(self, inputs: Sequence[torch.Tensor]) -> Session:
        sizes = tuple([inputs[index].shape[axis] for index, axis, _ in self._axes])
        found = self._known.get(sizes)
        if found is None:
            if len(self._known) >= _MAX_KNOWN_SIZES:
                self._known.clear()
            found = self._known[sizes] = self._sessions[self._profile(sizes)]
        return found

    def _profile(self, sizes: Sequence[int]) -> int:
        for profile in range(len(self._sessions)):
            ranges = (profiles[profile] for _, _, profiles in self._axes)
            pairs = zip(sizes, ranges, strict=True)
            if all(low <= size <= high for size, (low, _, high) in pairs):
                return profile
        return 0
