"""Writer of .pt2 archives, byte-compatible with torch's writer. Imports no torch.

torch's writer (PyTorchStreamWriter, caffe2/serialize/inline_container.cc) uses stored records, each
aligned to 64 bytes by an extra field "FB" in its local header, sizes and CRC-32 in a data
descriptor after the data, Zip64 if a size or an offset requires it, and zero times and attributes.
"""

from __future__ import annotations

import contextlib
import hashlib
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from portrt.format.archive import Record
from portrt.format.atomic import OnBytes as OnBytes
from portrt.format.atomic import copy_bytes, replacing, write_all
from portrt.format.memory_map import drop_pages

SERIALIZATION_ID = ".data/serialization_id"

_ALIGNMENT = 64
_CHUNK_BYTES = 8 << 20
_MAX_32 = 0xFFFFFFFF
_MAX_16 = 0xFFFF
_DESCRIPTOR_FLAG = 0x0008
_UTF8_FLAG = 0x0800
_FLAGS = _DESCRIPTOR_FLAG | _UTF8_FLAG

# APPNOTE.TXT of PKWARE, 4.3: signatures and the order of the fields.
_LOCAL = struct.Struct("<4s5H3I2H")
_DESCRIPTOR = struct.Struct("<4s3I")
_DESCRIPTOR_64 = struct.Struct("<4sI2Q")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END_64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR_64 = struct.Struct("<4sIQI")
_END = struct.Struct("<4s4H2IH")


@dataclass(frozen=True)
class _Entry:
    name: bytes
    size: int
    crc: int
    header_offset: int


class ArchiveWriter:
    """Writes records sequentially from the start of a file; `close` writes the directory.

    Args:
        file: Binary file, open for writing. It is flushed before a record is copied into its file
            descriptor; a file without a descriptor is written in chunks.
        root: Root folder of all records in the archive. torch uses the name of the file.
        on_bytes: Called with the number of data bytes after each write.
    """

    def __init__(self, file: IO[bytes], root: str, on_bytes: OnBytes = lambda _count: None) -> None:
        self._file = file
        self._root = root
        self._on_bytes = on_bytes
        self._position = 0
        self._entries: list[_Entry] = []
        self._names: set[str] = set()

    def write(self, name: str, data: Any) -> Record:
        """Write a record from any contiguous buffer, which is not copied.

        Args:
            name: Name of the record, without the root folder.
            data: Bytes of the record; read in chunks, so that little of a mapped file is resident.

        Raises:
            ValueError: The archive has a record of that name already.
        """
        view = memoryview(data)
        view = view.cast("B") if view.nbytes else memoryview(b"")
        header = self._begin(name, view.nbytes)
        offset, crc = self._position, 0
        for start in range(0, view.nbytes, _CHUNK_BYTES):
            part = view[start : start + _CHUNK_BYTES]
            crc = zlib.crc32(part, crc)
            self._put(part)
            drop_pages(part)  # of a mapped file
            self._on_bytes(part.nbytes)
        self._end(name, view.nbytes, crc, header)
        return Record(offset, view.nbytes, crc)

    def copy(self, name: str, source: IO[bytes], record: Record) -> Record:
        """Copy a record from another file, inside the kernel if possible.

        Args:
            name: Name of the record, without the root folder.
            source: File open for reading; its position is changed.
            record: Offset, size and CRC-32 of the bytes in `source`. The CRC-32 is not verified
                here: damaged bytes are detected when the copy is read.

        Raises:
            ValueError: The archive has a record of that name already.
            OSError: The source ends within the record, or the file cannot be written.
        """
        header = self._begin(name, record.size)
        offset = self._position
        copy_bytes(source, record.offset, record.size, self._file, self._on_bytes)
        self._position += record.size
        self._end(name, record.size, record.crc, header)
        return Record(offset, record.size, record.crc)

    def serialization_id(self) -> str:
        """Return 40 digits derived from the names and CRC-32 values of the records so far.

        torch writes such a record last, so that equal contents have equal ids. torch's own hash
        function is not available here, and readers only compare ids for equality.
        """
        text = repr([(entry.name, entry.crc) for entry in self._entries])
        return f"{int(hashlib.sha256(text.encode()).hexdigest(), 16) % 10**40:040d}"

    def close(self) -> None:
        """Write the zip directory, which completes the archive; the file is not closed."""
        start = self._position
        for entry in self._entries:
            self._put(_central_header(entry))
        self._put(_end_records(start, self._position - start, len(self._entries)))
        self._file.flush()

    def _begin(self, name: str, size: int) -> int:
        """Write the local header and the padding before the data; return the header's offset."""
        if name in self._names:
            raise ValueError(f"the archive has a record {name!r} already")
        self._names.add(name)
        header_offset = self._position
        encoded = f"{self._root}/{name}".encode()
        extra = struct.pack("<2H2Q", 1, 16, size, size) if size >= _MAX_32 else b""
        begin = header_offset + _LOCAL.size + len(encoded) + len(extra) + 4
        padding = -begin % _ALIGNMENT
        extra += b"FB" + struct.pack("<H", padding) + b"Z" * padding
        # Sizes in the header are 0 if they are in the descriptor, and all ones with Zip64.
        mark = _MAX_32 if size >= _MAX_32 else 0
        fields = (0, _FLAGS, 0, 0, 0, 0, mark, mark, len(encoded), len(extra))
        self._put(_LOCAL.pack(b"PK\x03\x04", *fields) + encoded + extra)
        return header_offset

    def _end(self, name: str, size: int, crc: int, header_offset: int) -> None:
        form = _DESCRIPTOR_64 if size >= _MAX_32 else _DESCRIPTOR
        self._put(form.pack(b"PK\x07\x08", crc, size, size))
        encoded = f"{self._root}/{name}".encode()
        self._entries.append(_Entry(encoded, size, crc, header_offset))

    def _put(self, data: Any) -> None:
        self._position += write_all(self._file, data)


def _central_header(entry: _Entry) -> bytes:
    size, offset = entry.size, entry.header_offset
    extra = b""
    if size >= _MAX_32:
        extra += struct.pack("<2Q", size, size)
    if offset >= _MAX_32:
        extra += struct.pack("<Q", offset)
    if extra:
        extra = struct.pack("<2H", 1, len(extra)) + extra
    shown = min(size, _MAX_32)
    fields = (0, 0, _FLAGS, 0, 0, 0, entry.crc, shown, shown, len(entry.name), len(extra))
    head = _CENTRAL.pack(b"PK\x01\x02", *fields, 0, 0, 0, 0, min(offset, _MAX_32))
    return head + entry.name + extra


def _end_records(start: int, size: int, count: int) -> bytes:
    """Return the end-of-directory records: Zip64, which torch always writes, and the old form."""
    end_64 = _END_64.pack(b"PK\x06\x06", 44, 0x031E, 45, 0, 0, count, count, size, start)
    locator = _LOCATOR_64.pack(b"PK\x06\x07", 0, start + size, 1)
    shown = min(count, _MAX_16)
    end = _END.pack(b"PK\x05\x06", 0, 0, shown, shown, min(size, _MAX_32), min(start, _MAX_32), 0)
    return end_64 + locator + end


@contextlib.contextmanager
def replacing_archive(
    target: Path, root: str, on_bytes: OnBytes = lambda _count: None
) -> Iterator[ArchiveWriter]:
    """Write an archive that atomically replaces `target` when the `with` block succeeds.

    Args:
        target: Path of the file; an existing file is unchanged until the block ends without error.
        root: Root folder of the records in the archive.
        on_bytes: Called with the number of data bytes after each write.
    """
    with replacing(target) as file:
        writer = ArchiveWriter(file, root, on_bytes)
        yield writer
        writer.close()
