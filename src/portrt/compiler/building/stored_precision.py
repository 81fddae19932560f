"""Requested precision of a stored engine, which later engines of the block are built with as well.

An engine's `build` entry states the precision that it computes in, and in `autocast` the requested
one, if that is not the model's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from portrt.compiler.options.precision import PRECISIONS
from portrt.compiler.options.settings import Settings
from portrt.errors import PackageError
from portrt.format.manifest import EngineSpec

_NAMES = ("autocast_excluded_modules", "autocast_excluded_ops")
_THRESHOLD = "autocast_max_output_threshold"
# Fields of Settings that form one request; if the user sets one of them, all are replaced.
FIELDS = ("precision", *_NAMES, _THRESHOLD)


def autocast_entry(settings: Settings) -> dict[str, Any]:
    """Return the field `autocast` of an engine's `build`; empty if it keeps the model's dtypes."""
    if settings.precision is None:
        return {}
    requested: dict[str, Any] = {"precision": settings.precision}
    requested |= {name: sorted(getattr(settings, name)) for name in _NAMES}
    return {"autocast": {**requested, _THRESHOLD: settings.autocast_max_output_threshold}}


def with_stored_precision(
    settings: Settings, engines: Iterable[EngineSpec], backend: str
) -> Settings:
    """Return settings with the precision of the block's engine of this backend, or of its first.

    Raises:
        PackageError: The stored request is invalid.
    """
    ordered = sorted(engines, key=lambda spec: spec.backend != backend)  # a stable sort
    if not ordered:
        return settings
    build = ordered[0].build
    requested = build.get("autocast")
    if requested is None:  # the file states only the resulting precision, or the model's dtypes
        stored = build.get("precision")
        return dataclasses.replace(settings, precision=stored if stored in PRECISIONS else None)
    return dataclasses.replace(settings, **_checked(requested, ordered[0].backend))


def _checked(requested: Any, backend: str) -> Mapping[str, Any]:
    """Validate a request that was read from a file, which may contain any value."""
    found = dict(requested) if isinstance(requested, dict) else {}
    names = [found.get(name) for name in _NAMES]
    threshold: Any = found.get(_THRESHOLD)
    is_valid = (
        set(found) == set(FIELDS)
        and found["precision"] in PRECISIONS
        and all(isinstance(item, list) and all(type(it) is str for it in item) for item in names)
        and type(threshold) in (int, float)
        and 0 < threshold < float("inf")
    )
    if not is_valid:
        raise PackageError(
            f"the {backend} engine states that it was built with autocast {str(requested)!r:.200}",
            f"a JSON object with {', '.join(FIELDS)}",
            "name a precision, or compile the model again",
        )
    return {**found, **{name: frozenset(found[name]) for name in _NAMES}}
