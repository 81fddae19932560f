"""The archive writer: byte for byte what torch writes, and every reader takes it."""

from __future__ import annotations

import io
import os
import random
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch

import portrt
from portrt.format.archive import Archive, Record
from portrt.format.archive_writer import ArchiveWriter, replacing_archive


def rewritten(source: Path, target: Path, *, copy: bool) -> None:
    """The same records, in the same order, under the same root."""
    archive = Archive(source)
    with source.open("rb") as file, replacing_archive(target, archive.root) as writer:
        for name, record in archive.records.items():
            if copy:
                writer.copy(name, file, record)
            else:
                writer.write(name, archive.read(name))


@pytest.mark.parametrize("copy", [True, False])
def test_it_writes_the_bytes_that_torch_writes(saved: Path, tmp_path: Path, copy: bool) -> None:
    """`saved` was written by torch's own writer."""
    rewritten(saved, tmp_path / "new.pt2", copy=copy)
    assert (tmp_path / "new.pt2").read_bytes() == saved.read_bytes()


def test_every_reader_takes_it(saved: Path, model: torch.nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "other name.pt2"
    rewritten(saved, path, copy=True)
    x = torch.randn(5, 8)
    torch.testing.assert_close(torch.export.load(path).module()(x), model(x))
    torch.testing.assert_close(portrt.load(path, verify=True).module()(x), model(x))
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(saved) as before:
        assert archive.testzip() is None
        for name in before.namelist():
            assert archive.read(name) == before.read(name)


def test_records_of_any_size_are_aligned_and_right(tmp_path: Path) -> None:
    numbers = random.Random(0)
    sizes = [0, 1, 63, 64, 65, *(numbers.randrange(5000) for _ in range(60)), (8 << 20) + 1]
    contents = {f"{'n' * (i % 70)}/é{i}": numbers.randbytes(size) for i, size in enumerate(sizes)}
    path = tmp_path / "a.pt2"
    placed = {}
    with replacing_archive(path, "root") as writer:
        for name, content in contents.items():
            placed[name] = writer.write(name, content)
        writer.write("archive_format", b"pt2")
        writer.write(".data/version", b"6\n")  # torch's reader wants it
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        for name, content in contents.items():
            record = placed[name]
            assert archive.read(f"root/{name}") == content
            assert record.offset % 64 == 0
            assert whole[record.offset : record.offset + record.size] == content
            assert record == Archive(path).record(name)
    reader = torch._C.PyTorchFileReader(str(path))
    assert all(reader.get_record(name) == content for name, content in contents.items())


def test_a_tensor_is_written_without_a_copy(tmp_path: Path) -> None:
    tensor = torch.arange(300, dtype=torch.int16)
    with replacing_archive(tmp_path / "a.pt2", "a") as writer:
        record = writer.write("archive_format", memoryview(tensor.numpy()))
    with zipfile.ZipFile(tmp_path / "a.pt2") as archive:
        assert archive.read("a/archive_format") == tensor.numpy().tobytes()
    assert record.size == 600


def test_it_says_what_was_written(saved: Path, tmp_path: Path) -> None:
    archive = Archive(saved)
    counts: list[int] = []
    with (
        saved.open("rb") as file,
        replacing_archive(tmp_path / "a.pt2", "a", counts.append) as writer,
    ):
        for name, record in archive.records.items():
            writer.copy(name, file, record)
    assert sum(counts) == sum(record.size for record in archive.records.values())


def test_files_without_a_descriptor(saved: Path) -> None:
    """Nothing for the kernel to copy between; and a raw file that takes less than it is given."""

    class Slow(io.BytesIO):
        def write(self, data: Any) -> int:
            return super().write(memoryview(data)[:1000])

    archive = Archive(saved)
    source, target = io.BytesIO(saved.read_bytes()), Slow()
    writer = ArchiveWriter(target, archive.root)
    for name, record in archive.records.items():
        writer.copy(name, source, record)
    writer.close()
    assert target.getvalue() == saved.read_bytes()


@pytest.mark.skipif(
    not hasattr(os, "copy_file_range"), reason="there is no os.copy_file_range here"
)
@pytest.mark.parametrize("done", [0, 1, 4096])
def test_a_kernel_that_refuses_to_copy(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: int
) -> None:
    """At once, or after a few bytes: two file systems, or one without it."""
    real = os.copy_file_range

    def refusing(out_of: int, into: int, count: int, offset_src: int) -> int:
        if done == 0 or offset_src % 64:
            raise OSError(18, "Invalid cross-device link")
        return real(out_of, into, min(count, done), offset_src=offset_src)

    monkeypatch.setattr(os, "copy_file_range", refusing)
    rewritten(saved, tmp_path / "a.pt2", copy=True)
    assert (tmp_path / "a.pt2").read_bytes().endswith(saved.read_bytes()[-22:])
    with zipfile.ZipFile(tmp_path / "a.pt2") as archive:
        assert archive.testzip() is None


def test_damage_is_copied_and_still_found(saved: Path, tmp_path: Path) -> None:
    record = Archive(saved).record("models/model.json")
    content = bytearray(saved.read_bytes())
    content[record.offset + 5] ^= 1
    (tmp_path / "bad.pt2").write_bytes(content)
    rewritten(tmp_path / "bad.pt2", tmp_path / "copy.pt2", copy=True)
    with zipfile.ZipFile(tmp_path / "copy.pt2") as archive:
        assert archive.testzip() == "archive/models/model.json"


def test_a_source_that_ends_early_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"abc")
    with (
        (tmp_path / "short").open("rb") as source,
        pytest.raises(OSError, match="ends at byte 3"),
        replacing_archive(tmp_path / "a.pt2", "a") as writer,
    ):
        writer.copy("x", source, Record(0, 4, 0))
    assert [path.name for path in tmp_path.iterdir()] == ["short"]


def test_a_name_is_taken_once(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="'x' already"),
        replacing_archive(tmp_path / "a.pt2", "a") as writer,
    ):
        writer.write("x", b"1")
        writer.write("x", b"2")
    assert not list(tmp_path.iterdir())


def test_the_id_follows_from_the_contents() -> None:
    def made(content: bytes) -> str:
        writer = ArchiveWriter(io.BytesIO(), "a")
        writer.write("x", content)
        return writer.serialization_id()

    assert made(b"1") == made(b"1") != made(b"2")
    assert len(made(b"1")) == 40
    assert made(b"1").isdigit()


class Sparse(io.RawIOBase):
    """A file in which zeros take no room, and no time."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = path.open("wb")

    def write(self, data: Any) -> int:
        if len(data) > 1 << 20:
            self._file.seek(len(data), 1)
        else:
            self._file.write(data)
        return len(data)

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class Zeros(io.RawIOBase):
    """A source of zeros without end."""

    def read(self, size: int = -1) -> bytes:
        return bytes(8 << 20)[:size]

    def seek(self, offset: int, whence: int = 0) -> int:
        return offset


@pytest.mark.parametrize("size", [0xFFFFFFFF - 1, 0xFFFFFFFF, (5 << 30) + 1])
def test_records_beyond_4_gb(tmp_path: Path, size: int) -> None:
    """A large record, and records behind it, at places that 32 bits do not hold."""
    path = tmp_path / "big.pt2"
    with Sparse(path) as file:
        writer = ArchiveWriter(file, "big")  # type: ignore[arg-type]
        placed = [
            writer.write("byteorder", b"little"),
            writer.copy("data/constants/tensor_0", Zeros(), Record(0, size, 7)),  # type: ignore[arg-type]
            writer.write("archive_format", b"pt2"),
            writer.write(".data/version", b"6\n"),  # torch's reader wants it
        ]
        writer.close()
    assert list(Archive(path).records.values()) == placed
    assert all(record.offset % 64 == 0 for record in placed)
    with zipfile.ZipFile(path) as archive:
        assert [info.file_size for info in archive.infolist()] == [6, size, 3, 2]
        assert archive.read("big/archive_format") == b"pt2"
    reader = torch._C.PyTorchFileReader(str(path))
    assert reader.get_record("archive_format") == b"pt2"
    assert reader.get_record_offset("data/constants/tensor_0") == placed[1].offset
    with path.open("rb") as raw:  # sizes in the descriptor: 32 bits where they fit, else 64
        raw.seek(placed[1].offset + size)
        form = "<4sI2Q" if size >= 0xFFFFFFFF else "<4s3I"
        fields = struct.unpack(form, raw.read(struct.calcsize(form)))
    assert fields == (b"PK\x07\x08", 7, size, size)


def test_crc_is_that_of_the_bytes(tmp_path: Path) -> None:
    with replacing_archive(tmp_path / "a.pt2", "a") as writer:
        assert writer.write("x", b"some bytes").crc == zlib.crc32(b"some bytes")
