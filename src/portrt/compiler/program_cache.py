"""Cache of compiled programs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.export import ExportedProgram

from portrt.cache.key import Key
from portrt.cache.store import Cache
from portrt.compiler.building.engine_cache import cache_of
from portrt.compiler.building.keys import key_or_none, program_key
from portrt.compiler.options.settings import Settings
from portrt.compiler.package.save import save
from portrt.errors import PortrtError
from portrt.graphs.module_path import model_class
from portrt.graphs.symbols import ProfileRanges
from portrt.targets.trust import PICKLE

if TYPE_CHECKING:
    from portrt.compiler.building.tasks import EngineTask

logger = logging.getLogger(__name__)


def build_program(
    captured: ExportedProgram,
    settings: Settings,
    tasks: Sequence[EngineTask],
    profile_ranges: ProfileRanges,
    build: Callable[[], tuple[ExportedProgram, bool]],
) -> ExportedProgram:
    """Return the compiled program from the cache, or build it and cache it.

    Args:
        captured: The captured program; not modified.
        settings: Settings of the compilation.
        tasks: The engines to build.
        profile_ranges: Optimization profiles of the engines.
        build: Returns the compiled program, and whether it is complete: a program that lacks an
            engine is not cached, because a later build may succeed.
    """
    cache = cache_of(settings)
    key = None
    if cache is not None:
        key = key_or_none(lambda: program_key(captured, settings, tasks, profile_ranges))
    if cache is None or key is None:
        return build()[0]
    found = _program(cache, key, settings)
    if found is not None:
        return found
    cache.explain_miss(key)
    with cache.building(key, settings.build_timeout_s):
        found = _program(cache, key, settings)
        if found is not None:
            return found
        program, complete = build()
        if settings.cache_built_engines and complete:
            _store_program(cache, key, captured, program, settings, tasks)
    return program


def _program(cache: Cache, key: Key, settings: Settings) -> ExportedProgram | None:
    """Load a program from the cache, with its tensors mapped from the file; None on a miss."""
    from portrt.runtime.load import load  # only needed on a hit

    entry = cache.get_file(key) if settings.reuse_cached_engines else None
    if entry is None:
        return None
    try:
        program = load(entry.data, trust=PICKLE)  # written here
    except PortrtError as err:
        logger.warning("the cached program cannot be read, and is compiled again: %s", err)
        return None
    logger.info("took the compiled program from the cache")
    return program


def _store_program(
    cache: Cache,
    key: Key,
    captured: ExportedProgram,
    program: ExportedProgram,
    settings: Settings,
    tasks: Sequence[EngineTask],
) -> None:
    tensors = [t for t in program.constants.values() if isinstance(t, torch.Tensor)]
    tensors += program.state_dict.values()
    if sum(t.numel() * t.element_size() for t in tensors) > cache.limit_bytes:
        return

    def write(path: Path) -> None:
        save(program, path, progress=False)

    replace = not settings.reuse_cached_engines
    meta = {
        "backends": [task.builder.name for task in tasks],
        "model": model_class(captured.graph),
    }
    cache.put(key, meta, write, replace=replace)
