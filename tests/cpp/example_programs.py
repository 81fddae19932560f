"""Programs of examples/cpp, compiled once for the same source and library."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from portrt.cpp.build import Built
from portrt.cpp.compiler import compiler, run

EXAMPLES = Path(__file__).parents[2] / "examples" / "cpp"


def compiled(built: Built, name: str, flags: Sequence[str], *parts: bytes) -> Path:
    """Return the program of an example.

    Args:
        built: The libraries.
        name: Of the source, without its suffix.
        flags: What compiles and links it.
        parts: What a program that exists already must have been compiled with, too.
    """
    source = EXAMPLES / f"{name}.cpp"
    digest = hashlib.sha256(b"\n".join([source.read_bytes(), *parts])).hexdigest()[:16]
    program = built.prefix / "bin" / f"{name}-{digest}"
    if not program.is_file():
        program.parent.mkdir(exist_ok=True)
        made = program.with_suffix(f".{os.getpid()}")
        run([*compiler(), str(source), *flags, "-o", str(made)])
        made.replace(program)
    return program
