"""Checks that a path is a regular file before it is opened: a pipe or a device may never end.

Imports no torch.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from portrt.errors import LoadError

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def irregular(mode: int) -> str:
    """Return what `st_mode` is of, such as "a folder"; "" for a regular file."""
    return "" if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "no regular file")


def require_file(path: str | os.PathLike[str]) -> os.stat_result:
    """Return the status of a regular file, or of what a symbolic link to one refers to.

    Raises:
        LoadError: It is something else, which has no end or no size.
        OSError: There is nothing, or it cannot be accessed.
    """
    found = Path(path).stat()
    kind = irregular(found.st_mode)
    if kind:
        raise LoadError(
            f"{os.fspath(path)!r} cannot be read: it is {kind}",
            "a regular file",
            "correct the path, or write the data to a file first",
        )
    return found
