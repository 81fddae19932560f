"""Which module of the user's model a node comes from, and patterns that name modules."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

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
        """From the metadata of a node of an exported graph."""
        stack = (meta.get("nn_module_stack") or {}).values()
        pairs = [(_ROOT.sub("", str(path)), _class_name(kind)) for path, kind in stack]
        pairs = [(path, kind) for path, kind in pairs if path]
        return cls(tuple(path for path, _ in pairs), tuple(kind for _, kind in pairs))

    @property
    def innermost(self) -> str:
        """The path of the module that the node is in; "" for the model itself."""
        return self.paths[-1] if self.paths else ""

    def match(self, patterns: Iterable[str]) -> str | None:
        """The first pattern that names one of these modules, else None.

        A pattern is a path such as "layers.0", or the full name of a class, with the wildcards of
        `fnmatch`. Whoever names a module names what is inside it.
        """
        for pattern in patterns:
            if any(fnmatchcase(name, pattern) for name in (*self.paths, *self.classes)):
                return pattern
        return None


def _class_name(kind: Any) -> str:
    return kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"


def nearest(pattern: str, paths: Iterable[str]) -> str:
    """The path that looks most like a pattern, for a message; "" where none does."""
    return next(iter(difflib.get_close_matches(pattern, list(paths), n=1, cutoff=0.4)), "")
