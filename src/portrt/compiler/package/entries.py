"""Manifest entries of built engines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from portrt.compiler.plan import Engine


def engine_entry(engine: Engine, data: Mapping[str, Any]) -> dict[str, Any]:
    """The entry of an engine whose bytes have the blob entry `data`."""
    return {
        "backend": engine.backend,
        "data": data,
        "build": dict(engine.build),
        "requires": dict(engine.requires),
        "weights": list(engine.weights),
        "check": engine.check,
    }
