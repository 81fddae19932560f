"""File objects, such as `io.BytesIO`, where a path is wanted."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from portrt.errors import SaveError, SettingsError
from portrt.format.temp_file import temporary_folder

PathOrFile = str | os.PathLike[str] | IO[bytes]


@contextmanager
def to_write(target: IO[bytes]) -> Iterator[Path]:
    """Give a path, whose content is written to a file object at the end; on errors nothing is.

    Raises:
        SettingsError: It is no binary file object.
        SaveError: Writing to it fails.
    """
    _check(target, "write")
    with temporary_folder("portrt-save-") as folder:
        path = folder / "model.pt2"
        yield path
        try:
            with path.open("rb") as file:
                shutil.copyfileobj(file, target)
        except OSError as err:
            raise not_written(target, err) from err


@contextmanager
def to_read(source: IO[bytes]) -> Iterator[Path]:
    """Give a path with the rest of a file object, which may be mapped.

    Raises:
        SettingsError: It is no binary file object.
    """
    _check(source, "read")
    with temporary_folder("portrt-load-") as folder:
        path = folder / "model.pt2"
        with path.open("wb") as file:
            shutil.copyfileobj(source, file)
        yield path


def not_written(target: object, err: OSError) -> SaveError:
    """Return the error of a path, or a file object, to which nothing can be written."""
    return SaveError(
        f"{target!r} could not be written: {err}",
        "an existing, writable folder, or an open file object",
        "correct the path or free disk space; an existing file is unchanged",
    )


def _check(target: object, method: str) -> None:
    if not hasattr(target, method) or isinstance(target, io.TextIOBase):
        raise SettingsError(
            f"the file is a {type(target).__name__}",
            "a path, or a binary file object such as io.BytesIO",
            "give one of these",
        )
