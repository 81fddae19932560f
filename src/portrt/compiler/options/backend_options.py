"""Options of single backends, found through the registry of backends."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from portrt.compiler.options.fields import BackendOptions, options_of
from portrt.targets import backends

logger = logging.getLogger(__name__)


@lru_cache
def options_class(backend: str) -> type[BackendOptions] | None:
    """Return a backend's class of options; None if it has none, is unknown, or fails to import."""
    row = backends.find(backend)
    if row is None or not row.options:
        return None
    try:
        found: type[BackendOptions] = backends.resolve(row.options)
        options_of(found)
    except Exception as err:  # code of another package
        logger.warning(
            "the options of the backend %s are left out: %s cannot be used: %s: %s",
            backend,
            row.options,
            type(err).__name__,
            err,
        )
        return None
    return found


def option_classes() -> tuple[type[BackendOptions], ...]:
    """Return the classes of options of all backends, each class once."""
    found = (options_class(name) for name in backends.names())
    return tuple(dict.fromkeys(cls for cls in found if cls is not None))


def built_in_owners() -> dict[type[BackendOptions], list[str]]:
    """Return each class of options of portrt's own backends -> the names of its backends."""
    found: dict[type[BackendOptions], list[str]] = {}
    for name in backends.BUILT_IN:
        cls = options_class(name)
        if cls is not None:
            found.setdefault(cls, []).append(name)
    return found


def route(given: Iterable[BackendOptions], values: Mapping[str, Any]) -> tuple[BackendOptions, ...]:
    """Set values in all backend options that have an option of that name.

    Args:
        given: Options of backends; of two instances of one class the later one is used.
        values: Name of an option -> value.

    Returns:
        The options that differ from the defaults, in a fixed order.
    """
    found = {type(item): item for item in given}
    for cls in option_classes() if values else ():
        own = {name: value for name, value in values.items() if name in options_of(cls)}
        if own:
            found[cls] = dataclasses.replace(found.get(cls, cls()), **own)
    changed = [item for cls, item in found.items() if item != cls()]
    return tuple(sorted(changed, key=lambda item: f"{type(item).__module__}.{type(item).__name__}"))
