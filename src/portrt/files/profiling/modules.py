"""The time of a block by module of the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class ModuleTime:
    """A module of the model.

    Attributes:
        path: Its path; empty for the model itself.
        seconds: Of the layers whose nodes are all in it, the modules in it included.
        inner: The modules in it that have layers of their own, slowest first.
    """

    path: str
    seconds: float = 0.0
    inner: list[ModuleTime] = field(default_factory=list)


def module_times(block: Mapping[str, Any]) -> ModuleTime:
    """Sum the times of a block's layers by module.

    A layer that computes nodes of several modules counts to the one that holds them all; one that
    is not mapped, to the model.

    Args:
        block: A block in the JSON of a profile.

    Returns:
        The model, with everything in it.
    """
    root = ModuleTime("")
    known = {"": root}
    for layer in block["layers"]:
        parts = layer["module"].split(".")
        root.seconds += layer["seconds"]
        for depth in range(1, len(parts) + 1 if parts[0] else 1):
            path = ".".join(parts[:depth])
            if path not in known:
                known[path] = ModuleTime(path)
                known[".".join(parts[: depth - 1])].inner.append(known[path])
            known[path].seconds += layer["seconds"]
    for module in known.values():
        module.inner.sort(key=lambda item: -item.seconds)
    return root
