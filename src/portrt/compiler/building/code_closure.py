"""Digest of the code that affects an engine: the sources of all modules that its builder imports.

Imports are read from the sources, without importing anything: imports inside functions count,
imports under TYPE_CHECKING do not, except in a package that resolves its names by a module-level
`__getattr__`: there they name the modules that it imports on first use. They count where the
package itself is used, not where its `__init__` merely runs before one of its modules. For a
builder of another distribution, its own package is followed as well.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, TypeGuard

_OWN = "portrt"
# Code that is part of every build: conversion, precision, and the worker's program, which is
# started by its path.
_ROOTS = (
    "portrt.compiler.building.engines",
    "portrt.compiler.backends.tensorrt.worker.build_engine",
)


@lru_cache
def closure_digest(builder: str) -> str:
    """Return the SHA-256 over the sources of a builder's import closure.

    Args:
        builder: Name of the module that defines the builder's class.
    """
    digest = hashlib.sha256()
    for name, path in sorted(import_closure(builder, *_ROOTS).items()):
        digest.update(name.encode() + b"\0")
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()


@lru_cache
def package_digest() -> str:
    """Return the SHA-256 over all sources of portrt."""
    root = _folder(_OWN)
    assert root is not None
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0")
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()


def import_closure(*roots: str) -> dict[str, Path]:
    """Return name -> source file of the roots and of all modules that they import transitively.

    Only modules of portrt and of the roots' own top packages are followed; versions of other
    libraries are separate parts of the cache key.
    """
    packages = {_OWN, *(name.partition(".")[0] for name in roots)}
    found: dict[str, Path] = {}
    lazily = set[str]()
    waiting = [_Import(name, used=False) for name in roots]
    while waiting:
        name, used = waiting.pop()
        path = _source(name) if name.partition(".")[0] in packages else None
        if path is None:  # an attribute of a module, or a module without a source file
            continue
        if used and name not in lazily:
            lazily.add(name)
            waiting += _lazy_imports(name, path)
        if name not in found:
            found[name] = path
            waiting += _imports(name, path)
            waiting += _parents(name)
    return found


class _Import(NamedTuple):
    name: str
    used: bool  # names of the module are used, so that what it imports lazily counts


def _parents(name: str) -> Iterator[_Import]:
    """Yield the packages whose `__init__` runs before a module."""
    while "." in name:
        name = name.rpartition(".")[0]
        yield _Import(name, used=False)


def _imports(name: str, path: Path) -> Iterator[_Import]:
    """Yield the modules that a source file imports when it runs."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    waiting: list[ast.AST] = [ast.parse(path.read_bytes(), str(path))]
    while waiting:
        node = waiting.pop()
        if _for_types(node):
            waiting += node.orelse
            continue
        yield from _named(node, package)
        waiting += ast.iter_child_nodes(node)


def _lazy_imports(name: str, path: Path) -> Iterator[_Import]:
    """Yield what a package with a module-level `__getattr__` imports on first use."""
    body = ast.parse(path.read_bytes(), str(path)).body
    if not any(isinstance(node, ast.FunctionDef) and node.name == "__getattr__" for node in body):
        return
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in body:
        if _for_types(node):
            for inner in node.body:
                yield from _named(inner, package)


def _for_types(node: ast.AST) -> TypeGuard[ast.If]:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def _named(node: ast.AST, package: str) -> Iterator[_Import]:
    if isinstance(node, ast.Import):
        yield from (_Import(alias.name, used=True) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        home = package.rsplit(".", node.level - 1)[0] if node.level else ""
        base = ".".join(part for part in (home, node.module) if part)
        for alias in node.names:
            submodule = f"{base}.{alias.name}"
            is_module = _source(submodule) is not None
            yield _Import(base, used=not is_module)
            yield _Import(submodule, used=True)


def _source(name: str) -> Path | None:
    """Return the source file of a module, or the `__init__.py` of a package; None if missing."""
    top, *rest = name.split(".")
    folder = _folder(top)
    if folder is None:
        file = getattr(sys.modules.get(top), "__file__", None)
        return Path(file) if file and file.endswith(".py") and not rest else None
    base = folder.joinpath(*rest)
    for path in (base / "__init__.py", base.with_suffix(".py")):
        if path.is_file():
            return path
    return None


def _folder(top: str) -> Path | None:
    """Return the folder of an imported top-level package; None for a plain module."""
    paths = getattr(sys.modules.get(top), "__path__", None)
    return Path(next(iter(paths))) if paths else None
