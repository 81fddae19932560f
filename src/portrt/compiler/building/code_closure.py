"""The code that decides what an engine is: every module that its builder imports, by its source.

Read from the sources, without importing anything: imports inside functions count, imports for types
alone do not. A builder that another distribution brings is followed through its own package too.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

_OWN = "portrt"
# What runs beside every builder: conversion, precision, and the program that the worker runs, which
# is started by its path.
_ROOTS = (
    "portrt.compiler.building.engines",
    "portrt.compiler.backends.tensorrt.worker.build_engine",
)


@lru_cache
def closure_digest(builder: str) -> str:
    """SHA-256 over the sources of a builder's import closure.

    Args:
        builder: Name of the module that has the builder's class.
    """
    digest = hashlib.sha256()
    for name, path in sorted(import_closure(builder, *_ROOTS).items()):
        digest.update(name.encode() + b"\0")
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()


@lru_cache
def package_digest() -> str:
    """SHA-256 over all sources of portrt."""
    root = _folder(_OWN)
    assert root is not None
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0")
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()


def import_closure(*roots: str) -> dict[str, Path]:
    """Name and source of each module that the roots import, directly or not, and of the roots.

    Followed are modules of portrt and of the roots' own top packages; the versions of other
    libraries are parts of a key of their own.
    """
    packages = {_OWN, *(name.partition(".")[0] for name in roots)}
    found: dict[str, Path] = {}
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name in found or name.partition(".")[0] not in packages:
            continue
        path = _source(name)
        if path is None:  # a name within a module, or a module without a source
            continue
        found[name] = path
        waiting += _imports(name, path)
        waiting += _parents(name)
    return found


def _parents(name: str) -> Iterator[str]:
    """The packages whose `__init__` runs before a module."""
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


def _imports(name: str, path: Path) -> Iterator[str]:
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    waiting: list[ast.AST] = [ast.parse(path.read_bytes(), str(path))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            waiting += node.orelse
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            home = package.rsplit(".", node.level - 1)[0] if node.level else ""
            base = ".".join(part for part in (home, node.module) if part)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
        waiting += ast.iter_child_nodes(node)


def _source(name: str) -> Path | None:
    """The file of a module; a package's is its `__init__.py`."""
    top, *rest = name.split(".")
    folder = _folder(top)
    if folder is None:
        file = getattr(sys.modules.get(top), "__file__", None)
        return Path(file) if file and file.endswith(".py") and not rest else None
    place = folder.joinpath(*rest)
    for path in (place / "__init__.py", place.with_suffix(".py")):
        if path.is_file():
            return path
    return None


def _folder(top: str) -> Path | None:
    """The folder of a top package that is imported here; None for a plain module."""
    places = getattr(sys.modules.get(top), "__path__", None)
    return Path(next(iter(places))) if places else None
