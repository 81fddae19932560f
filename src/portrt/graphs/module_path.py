"""Modules of the user's model that a node comes from, and patterns that match modules."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch

logger = logging.getLogger(__name__)

_ROOT = re.compile(r"^L\['self'\]\.?|^L__self___?")


@dataclass(frozen=True)
class ModulePath:
    """The modules around a node, outermost first.

    Attributes:
        paths: Their paths in the model, such as ("layers.0", "layers.0.attention"); the model
            itself is left out.
        classes: The full name of the class of each.
    """

    paths: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()

    @classmethod
    def of(cls, meta: Mapping[str, Any]) -> ModulePath:
        """Read the path from the metadata of a node of an exported graph."""
        stack = (meta.get("nn_module_stack") or {}).values()
        pairs = [(_ROOT.sub("", str(path)), _class_name(kind)) for path, kind in stack]
        pairs = [(path, kind) for path, kind in pairs if path]
        return cls(tuple(path for path, _ in pairs), tuple(kind for _, kind in pairs))

    @property
    def innermost(self) -> str:
        """Path of the module that the node is in; "" for the model itself."""
        return self.paths[-1] if self.paths else ""

    def match(self, patterns: Iterable[str]) -> str | None:
        """Return the first pattern that matches one of these modules, else None.

        A pattern is a path such as "layers.0", or the full name of a class, with the wildcards of
        `fnmatch`. A pattern that matches a module matches the modules inside it.
        """
        for pattern in patterns:
            if any(fnmatchcase(name, pattern) for name in (*self.paths, *self.classes)):
                return pattern
        return None


def model_class(graph: torch.fx.Graph) -> str:
    """Return the full name of the model's class, or "" if no node of the graph knows it."""
    for node in graph.nodes:
        for path, kind in (node.meta.get("nn_module_stack") or {}).values():
            if not _ROOT.sub("", str(path)):
                return _class_name(kind)
    return ""


def _class_name(kind: Any) -> str:
    return kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"


def warn_of_unmatched_patterns(
    option: str, patterns: Iterable[str], paths: list[ModulePath]
) -> None:
    """Warn of patterns that match no module of a graph, such as misspelt ones."""
    for pattern in sorted(patterns):
        if not any(path.match([pattern]) for path in paths):
            known = sorted({name for path in paths for name in path.paths})
            near = difflib.get_close_matches(pattern, known, n=1, cutoff=0.4)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            logger.warning("%s has %r, which matches no operator's module%s", option, pattern, hint)
