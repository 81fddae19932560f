"""Cache of engines: look up, or build under a lock and store."""

from __future__ import annotations

import logging
from typing import Any

from portrt.cache.key import Key
from portrt.cache.store import Cache, open_cache
from portrt.compiler.backends.base import Builder, BuildInput
from portrt.compiler.building.keys import engine_key, key_or_none
from portrt.compiler.options.settings import Settings
from portrt.compiler.plan import Engine
from portrt.graphs.module_path import model_class

logger = logging.getLogger(__name__)


def cache_of(settings: Settings) -> Cache | None:
    """Return the cache that these settings use, or None if it is disabled."""
    used = settings.cache_built_engines or settings.reuse_cached_engines
    return open_cache(settings.cache_dir) if used else None


def build_engine(builder: Builder, build_input: BuildInput, settings: Settings) -> Engine:
    """Build an engine, or return a cached one that was built from the same input.

    Raises:
        BuildError: The builder rejected the block or crashed.
        ConvertError: The block has no ONNX form at the opsets that the builder reads.
    """
    cache = cache_of(settings)
    key = key_or_none(lambda: engine_key(builder, build_input, settings)) if cache else None
    if cache is None or key is None:
        return builder.build(build_input, settings)
    found = _engine(cache, key, settings)
    if found is not None:
        return found
    cache.explain_miss(key)
    with cache.building(key, settings.build_timeout_s):
        found = _engine(cache, key, settings)  # another process may have built it in the meantime
        if found is not None:
            return found
        engine = builder.build(build_input, settings)
        if settings.cache_built_engines:
            replace = not settings.reuse_cached_engines
            meta = _meta_of(engine, build_input)
            cache.put(key, meta, lambda path: path.write_bytes(engine.data), replace=replace)
    return engine


def _engine(cache: Cache, key: Key, settings: Settings) -> Engine | None:
    found = cache.get(key) if settings.reuse_cached_engines else None
    if found is None:
        return None
    entry, data = found
    meta = entry.meta
    logger.info("took the %s engine of %s from the cache", meta["backend"], meta["block"])
    return Engine(
        backend=meta["backend"],
        data=data,
        build=meta["build"],
        requires=meta["requires"],
        weights=tuple(meta["weights"]),
    )


def _meta_of(engine: Engine, build_input: BuildInput) -> dict[str, Any]:
    return {
        "backend": engine.backend,
        "block": build_input.block.name,
        "model": model_class(build_input.block.program.graph),
        "build": dict(engine.build),
        "requires": dict(engine.requires),
        "weights": list(engine.weights),
    }
