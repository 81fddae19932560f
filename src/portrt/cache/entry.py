"""One entry of the cache: a folder with the data and its description, both checked when read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from portrt.cache.key import Key

DATA = "data"
ENTRY = "entry.json"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Entry:
    """One entry.

    Attributes:
        name: Kind and digest of its key.
        kind: "engine" or "program".
        parts: The parts of its key.
        meta: Metadata of the data, as plain JSON values.
        size: Bytes of the data.
        sha256: Digest of the data.
        folder: Folder of the entry.
        used: Time of its last use, in seconds since the epoch.
    """

    name: str
    kind: str
    parts: Mapping[str, str]
    meta: Mapping[str, Any]
    size: int
    sha256: str
    folder: Path
    used: float

    @property
    def data(self) -> Path:
        """Path of the data file."""
        return self.folder / DATA


class BadEntryError(Exception):
    """An entry is damaged."""


def read_entry(folder: Path) -> Entry:
    """Read and check the description of an entry; its data is not read.

    Raises:
        BadEntryError: The description is damaged.
        OSError: It cannot be read, or does not exist.
    """
    text = (folder / ENTRY).read_bytes()
    digest, _, body = text.partition(b"\n")
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise BadEntryError("its description is damaged")
    used = (folder / ENTRY).stat().st_mtime
    entry = Entry(name=folder.name, folder=folder, used=used, **json.loads(body))
    if Key(entry.kind, entry.parts).name != folder.name:
        raise BadEntryError("it is the entry of another key")
    return entry


def write_entry(workdir: Path, key: Key, meta: Mapping[str, Any], size: int) -> None:
    """Write the description of the data, after a digest of the description.

    Nothing is synced to disk: after a power failure the digests do not match.
    """
    body = json.dumps(
        {
            "kind": key.kind,
            "parts": dict(key.parts),
            "meta": dict(meta),
            "size": size,
            "sha256": _file_digest(workdir / DATA),
        },
        sort_keys=True,
    ).encode()
    (workdir / ENTRY).write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)


def use_of(folder: Path) -> list[tuple[float, int]]:
    """Return (last use, bytes) of an entry; empty if it is gone, last use 0 if it is incomplete."""
    try:
        size = sum(path.stat().st_size for path in folder.iterdir())
    except OSError:
        return []
    try:
        return [((folder / ENTRY).stat().st_mtime, size)]
    except OSError:
        return [(0.0, size)]


def check_data(entry: Entry) -> None:
    """Raise BadEntryError if the data of an entry has another size or digest than recorded."""
    _compare(entry, entry.data.stat().st_size, _file_digest(entry.data))


def read_data(entry: Entry) -> bytes:
    data = entry.data.read_bytes()
    _compare(entry, len(data), hashlib.sha256(data).hexdigest())
    return data


def _compare(entry: Entry, size: int, digest: str) -> None:
    if size != entry.size:
        raise BadEntryError(f"it has {size} bytes, and {entry.size} were written")
    if digest != entry.sha256:
        raise BadEntryError(f"its SHA-256 is {digest[:16]}..., not {entry.sha256[:16]}...")


def _file_digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
