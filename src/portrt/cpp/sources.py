"""The C++ sources of the run side, as they lie in the package."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent / "csrc"

# What the library consists of; tests and examples are elsewhere.
_FOLDERS = ("core", "engines", "runtime", "program", "torch", "include")
_SUFFIXES = (".cpp", ".h", ".inc")


def units() -> list[Path]:
    """Return the translation units of the libraries."""
    return [path for path in _files() if path.suffix == ".cpp"]


def needs_torch(unit: Path) -> bool:
    """Return whether a unit is of the library with torch alone."""
    return unit.is_relative_to(ROOT / "torch")


def headers() -> list[Path]:
    """Return the public headers, which lie below `include`."""
    return [path for path in _files() if path.is_relative_to(ROOT / "include")]


def digest() -> str:
    """Return the SHA-256 of all files, with their names."""
    found = hashlib.sha256()
    for path in _files():
        content = path.read_bytes()
        found.update(f"{path.relative_to(ROOT).as_posix()} {len(content)}\n".encode())
        found.update(content)
    return found.hexdigest()


def _files() -> Iterator[Path]:
    for folder in _FOLDERS:
        yield from sorted(p for p in (ROOT / folder).rglob("*") if p.suffix in _SUFFIXES)
