"""Sums the times of a block by module of the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class ModuleTime:
    """A module of the model.

    Attributes:
        path: Path of the module; empty for the model itself.
        seconds: Time of the layers whose nodes are all in it, its submodules included.
        inner: Its submodules that have layers, slowest first.
    """

    path: str
    seconds: float = 0.0
    inner: list[ModuleTime] = field(default_factory=list)


def module_times(block: Mapping[str, Any]) -> ModuleTime:
    """Sum the times of a block's layers by module.

    A layer that computes nodes of several modules counts to their innermost common module; a layer
    that is not mapped counts to the model.

    Args:
        block: A block in the JSON of a profile.

    Returns:
        The model, with its submodules.
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
