"""What a call costs, in numbers that a busy machine does not change. No torch in here."""

from __future__ import annotations

import builtins
import contextlib
import io
import os
import pathlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock


class TooMuchError(BaseException):
    """More steps than were allowed. No `except Exception` of what is tested catches it."""


@dataclass
class Steps:
    """How many were taken so far."""

    taken: int = 0


@contextlib.contextmanager
def steps(most: int) -> Iterator[Steps]:
    """Count the steps of this thread in what is called: functions entered, lines, turns of loops.

    What one call of a function in C does is not counted.

    Args:
        most: So many are allowed; one more ends the work, also where it would never end.
    """
    found = Steps()

    def trace(frame: Any, event: str, arg: Any) -> Any:
        if event in ("call", "line"):
            found.taken += 1
            if found.taken > most:
                raise TooMuchError(f"more than {most} steps")
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield found
    finally:
        sys.settrace(before)
    if found.taken > most:  # somebody caught it
        raise TooMuchError(f"more than {most} steps")


@dataclass
class Reads:
    """What was read of one file.

    Attributes:
        opened: How often it was opened.
        count: Bytes that were read, through all of these.
        uncounted: How often it was opened or mapped in a way whose reads nobody counts.
    """

    path: str
    opened: int = 0
    count: int = 0
    uncounted: int = 0
    _announced: int = field(default=0, repr=False)


_watched: list[Reads] = []
_hooked: list[bool] = []


@contextlib.contextmanager
def reads_of(path: str | Path) -> Iterator[Reads]:
    """Count the bytes that Python reads of a file, which is opened meanwhile."""
    found = Reads(os.fspath(path))
    real = io.open

    class Counting(io.FileIO):
        def readinto(self, buffer: Any) -> Any:
            size = super().readinto(buffer)
            found.count += size or 0
            return size

        def read(self, size: int = -1, /) -> Any:
            data = super().read(size)
            found.count += len(data or b"")
            return data

        def readall(self) -> Any:
            data = super().readall()
            found.count += len(data or b"")
            return data

    def opens(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if mode != "rb" or isinstance(file, int) or os.fspath(file) != found.path:
            return real(file, mode, *args, **kwargs)
        found.opened += 1
        return io.BufferedReader(Counting(found.path))

    if not _hooked:
        sys.addaudithook(_audit)  # for ever
        _hooked.append(True)
    _watched.append(found)
    try:
        with (
            mock.patch.object(io, "open", opens),
            mock.patch.object(builtins, "open", opens),
            mock.patch.object(pathlib.Path, "open", opens),
        ):
            yield found
    finally:
        _watched.remove(found)
        found.uncounted += found._announced - found.opened


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if not _watched or event not in ("open", "mmap.__new__"):
        return
    for found in _watched:
        if event == "open":
            place = args[0]
            if isinstance(place, (str, bytes, os.PathLike)):
                found._announced += os.fsdecode(place) == found.path
        elif args[0] >= 0:
            found.uncounted += os.path.samestat(os.fstat(args[0]), Path(found.path).stat())
