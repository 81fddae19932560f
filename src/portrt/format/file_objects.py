"""File objects, such as `io.BytesIO`, where a path is wanted."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from portrt.errors import LoadError, SaveError, SettingsError
from portrt.format.temp_file import temporary_folder

_PIECE = 1 << 20

PathOrFile = str | os.PathLike[str] | IO[bytes]


@contextmanager
def to_write(target: IO[bytes]) -> Iterator[Path]:
    """Give a path, whose content is written to a file object when it is complete.

    Raises:
        SettingsError: It is no binary file object.
        SaveError: Writing to it fails; what it wrote before that stays.
    """
    _check(target, "write")
    with temporary_folder("portrt-save-") as folder:
        path = folder / "model.pt2"
        yield path
        try:
            with path.open("rb") as file:
                while piece := file.read(_PIECE):
                    _write(target, piece)
        except (OSError, ValueError) as err:  # that of a closed file is a ValueError
            raise not_written(target, err) from err


@contextmanager
def to_read(source: IO[bytes]) -> Iterator[Path]:
    """Give a path with the rest of a file object, which may be mapped.

    Raises:
        SettingsError: It is no binary file object.
        LoadError: It cannot be read, or is at its end.
    """
    _check(source, "read")
    with temporary_folder("portrt-load-") as folder:
        path = folder / "model.pt2"
        try:
            with path.open("wb") as file:
                shutil.copyfileobj(source, file)
        except (OSError, ValueError) as err:
            raise LoadError(
                f"the {type(source).__name__} cannot be read: {err}",
                "an open file object with the bytes of a file",
                "open it for reading",
            ) from err
        if not path.stat().st_size:
            raise LoadError(
                f"the {type(source).__name__} has no bytes from where it stands",
                "the bytes of a file",
                "call seek(0) after writing to it",
            )
        yield path


def not_written(target: object, err: Exception) -> SaveError:
    """Return the error of a path, or a file object, to which nothing can be written."""
    return SaveError(
        f"{target!r} could not be written: {err}",
        "an existing, writable folder, or an open file object",
        "correct the path or free disk space; a file at a path is unchanged",
    )


def _write(target: IO[bytes], piece: bytes) -> None:
    """Write all of it, also to a raw file, which may write a part of what it is given."""
    rest = memoryview(piece)
    while rest:
        count: int | None = target.write(rest)  # None of some file objects
        if count is None:
            return
        if count <= 0:
            raise OSError("it takes no more bytes")
        rest = rest[count:]


def _check(target: object, method: str) -> None:
    if not hasattr(target, method) or isinstance(target, io.TextIOBase):
        raise SettingsError(
            f"the file is a {type(target).__name__}",
            "a path, or a binary file object such as io.BytesIO",
            "give one of these",
        )
