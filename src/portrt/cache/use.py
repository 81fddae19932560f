"""How `compile` and the runtime use the cache: look, else build while others wait, and keep."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.export import ExportedProgram

from portrt.artifacts import Engine, Tuned
from portrt.backends.base import Backend, Material
from portrt.cache.describe import UnknownValueError
from portrt.cache.key import Key
from portrt.cache.parts import engine_key, program_key
from portrt.cache.store import Cache
from portrt.cache.where import cache_folder, cache_limit_bytes
from portrt.errors import PortrtError
from portrt.package.save import save
from portrt.settings import Settings

if TYPE_CHECKING:
    from portrt.build import Builder

logger = logging.getLogger(__name__)


def open_cache(settings: Settings) -> Cache | None:
    """The cache that these settings ask for, or None where it is switched off."""
    if not (settings.cache_built_engines or settings.reuse_cached_engines):
        return None
    folder = cache_folder(settings.cache_dir)
    return None if folder is None else _cache_in(folder, cache_limit_bytes())


@lru_cache
def _cache_in(folder: Path, limit_bytes: int) -> Cache:
    return Cache(folder, limit_bytes)


def build_engine(backend: Backend, material: Material, settings: Settings) -> Engine:
    """`backend.build`, or the engine that it built before from the same material.

    Raises:
        BuildError: As `backend.build`.
        ConvertError: Likewise.
    """
    cache = open_cache(settings)
    key = _key_or_none(lambda: engine_key(backend, material, settings)) if cache else None
    if cache is None or key is None:
        return backend.build(material, settings)
    found = _engine(cache, key, settings)
    if found is not None:
        return found
    cache.explain_miss(key)
    with cache.building(key, settings.build_timeout_s):
        found = _engine(cache, key, settings)  # another process may have built it meanwhile
        if found is not None:
            return found
        engine = backend.build(material, settings)
        if settings.cache_built_engines:
            replace = not settings.reuse_cached_engines
            meta = _meta_of(engine, material)
            cache.put(key, meta, lambda path: path.write_bytes(engine.data), replace=replace)
    return engine


def _key_or_none(make: Callable[[], Key]) -> Key | None:
    try:
        return make()
    except UnknownValueError as err:
        logger.debug("not cached: %s", err)
        return None


def _engine(cache: Cache, key: Key, settings: Settings) -> Engine | None:
    found = cache.get(key) if settings.reuse_cached_engines else None
    if found is None:
        return None
    entry, data = found
    meta = entry.meta
    logger.info("took the %s engine of %s from the cache", meta["backend"], meta["block"])
    return Engine(
        meta["backend"], data, meta["build"], meta["requires"], tuple(meta["weights"]), None
    )


def _meta_of(engine: Engine, material: Material) -> dict[str, Any]:
    return {
        "backend": engine.backend,
        "block": material.block.name,
        "build": dict(engine.build),
        "requires": dict(engine.requires),
        "weights": list(engine.weights),
    }


def build_program(
    captured: ExportedProgram,
    settings: Settings,
    builders: Sequence[Builder],
    best: Tuned,
    build: Callable[[], tuple[ExportedProgram, bool]],
) -> ExportedProgram:
    """What `build` makes of a captured program, or what it made of an equal one before.

    Args:
        captured: Not changed.
        settings: Of the compilation.
        builders: The engines to build.
        best: Sizes that engines are tuned for.
        build: Gives the compiled program, and whether it is all that was asked for: what failed may
            succeed another time, and is not kept.
    """
    cache = open_cache(settings)
    key = None
    if cache is not None:
        key = _key_or_none(lambda: program_key(captured, settings, builders, best))
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
            _keep_program(cache, key, program, settings, builders)
    return program


def _program(cache: Cache, key: Key, settings: Settings) -> ExportedProgram | None:
    """The program, its tensors mapped from the file in the cache."""
    from portrt.package.load import load  # not needed where nothing is found

    entry = cache.get_file(key) if settings.reuse_cached_engines else None
    if entry is None:
        return None
    try:
        program = load(entry.data)
    except PortrtError as err:
        logger.warning("the cached program cannot be read, and is compiled again: %s", err)
        return None
    logger.info("took the compiled program from the cache")
    return program


def _keep_program(
    cache: Cache,
    key: Key,
    program: ExportedProgram,
    settings: Settings,
    builders: Sequence[Builder],
) -> None:
    tensors = [t for t in program.constants.values() if isinstance(t, torch.Tensor)]
    tensors += program.state_dict.values()
    if sum(t.numel() * t.element_size() for t in tensors) > cache.limit_bytes:
        return

    def write(path: Path) -> None:
        save(program, path, progress=False)

    replace = not settings.reuse_cached_engines
    meta = {"backends": [builder.backend.name for builder in builders]}
    cache.put(key, meta, write, replace=replace)
