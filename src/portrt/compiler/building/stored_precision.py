"""The precision that a stored engine was asked for: a later engine of the block is built likewise.

An engine's entry says in `build` what it computes in, and in `autocast` what was asked for, where
that was another precision than the model's.
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
# Fields of Settings that are asked for together; one of them from the user replaces all.
FIELDS = ("precision", *_NAMES, _THRESHOLD)


def autocast_entry(settings: Settings) -> dict[str, Any]:
    """For `build` of an engine's entry; empty where it keeps the model's dtypes."""
    if settings.precision is None:
        return {}
    asked: dict[str, Any] = {"precision": settings.precision}
    asked |= {name: sorted(getattr(settings, name)) for name in _NAMES}
    return {"autocast": {**asked, _THRESHOLD: settings.autocast_max_output_threshold}}


def with_stored_precision(
    settings: Settings, engines: Iterable[EngineSpec], backend: str
) -> Settings:
    """Settings with the precision of a block's engine of this backend, or else of its first one.

    Raises:
        PackageError: The entry holds what no engine is built with.
    """
    known = sorted(engines, key=lambda spec: spec.backend != backend)  # the order stays otherwise
    if not known:
        return settings
    build = known[0].build
    asked = build.get("autocast")
    if asked is None:  # of a file that only says what it computes in, or a model's own dtype
        said = build.get("precision")
        return dataclasses.replace(settings, precision=said if said in PRECISIONS else None)
    return dataclasses.replace(settings, **_checked(asked, known[0].backend))


def _checked(asked: Any, backend: str) -> Mapping[str, Any]:
    """From a file: anything can stand in it."""
    found = dict(asked) if isinstance(asked, dict) else {}
    names = [found.get(name) for name in _NAMES]
    threshold: Any = found.get(_THRESHOLD)
    fits = (
        set(found) == set(FIELDS)
        and found["precision"] in PRECISIONS
        and all(isinstance(item, list) and all(type(it) is str for it in item) for item in names)
        and type(threshold) in (int, float)
        and 0 < threshold < float("inf")
    )
    if not fits:
        raise PackageError(
            f"the {backend} engine says that it was built with autocast {str(asked)!r:.200}",
            f"a JSON object with {', '.join(FIELDS)}",
            "name a precision, or compile the model again",
        )
    return {**found, **{name: frozenset(found[name]) for name in _NAMES}}
