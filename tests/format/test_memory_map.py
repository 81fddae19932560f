"""Mapped files: found by address, told from files that took their place, and let go of."""

from __future__ import annotations

import gc
import hashlib
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny

from portrt.format import memory_map, temp_file
from portrt.format.memory_map import drop_pages, map_file, region_at, sha256_of
from portrt.format.temp_file import scratch_file

PAGE = 4096


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "file"
    made.write_bytes(np.random.default_rng(0).bytes(20 * PAGE + 5))
    return made


def address_of(array: np.ndarray) -> int:
    return int(array.ctypes.data)


def test_a_file_is_mapped_privately(path: Path) -> None:
    before = path.read_bytes()
    memory = map_file(path)
    memory[0] = before[0] ^ 1
    assert memory[1:] == before[1:]
    assert path.read_bytes() == before


def test_memory_of_a_file_is_known_as_long_as_it_is_used(path: Path) -> None:
    array = np.frombuffer(map_file(path), dtype=np.uint8)
    part = array[100:200]
    region = region_at(address_of(part), part.size)
    assert region is not None
    assert region.path == path.resolve()
    assert address_of(part) - region.address == 100
    assert region_at(address_of(part), array.size) is None  # goes beyond its end
    assert region_at(address_of(np.zeros(8)), 8) is None
    address = address_of(array)
    del array, part
    gc.collect()
    assert region_at(address, 1) is None


def test_the_path_is_that_of_the_file_and_not_of_a_link(path: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(path)
    array = np.frombuffer(map_file(tmp_path / "link"), dtype=np.uint8)
    region = region_at(address_of(array), 1)
    assert region is not None
    assert region.path == path.resolve()


@pytest.mark.parametrize("how", ["replaced", "removed", "longer", "changed"])
def test_another_file_at_the_path_is_noticed(how: str, path: Path, tmp_path: Path) -> None:
    array = np.frombuffer(map_file(path), dtype=np.uint8)
    region = region_at(address_of(array), array.size)
    assert region is not None
    assert region.is_there()
    if how == "replaced":
        (tmp_path / "new").write_bytes(path.read_bytes())
        (tmp_path / "new").replace(path)
    elif how == "removed":
        path.unlink()
    else:
        with path.open("r+b") as file:
            file.seek(0, os.SEEK_END if how == "longer" else os.SEEK_SET)
            file.write(b"x")
        os.utime(path, ns=(0, 0))
    assert not region.is_there()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_dropped_pages_leave_memory_and_come_back(path: Path) -> None:
    def resident_kb() -> int:
        text = Path("/proc/self/smaps").read_text().split(f"{path}\n")[1]
        return int(text.split("Rss:")[1].split()[0])

    array = np.frombuffer(map_file(path), dtype=np.uint8)
    wanted = hashlib.sha256(array.tobytes()).hexdigest()
    full = resident_kb()
    drop_pages(array)
    assert resident_kb() < full / 4
    assert hashlib.sha256(array.tobytes()).hexdigest() == wanted


def test_only_whole_pages_of_a_part_are_dropped(path: Path) -> None:
    """What was written beside the part stays."""
    memory = map_file(path)
    array = np.frombuffer(memory, dtype=np.uint8)
    start, end = 3 * PAGE + 10, 9 * PAGE + 10
    array[start - 1] = array[end] = 77
    drop_pages(array[start:end])
    assert (array[start - 1], array[end]) == (77, 77)
    assert memory[start:end] == path.read_bytes()[start:end]


@pytest.mark.parametrize("data", [b"", b"abc", bytearray(100), np.ones(5)], ids=repr)
def test_dropping_other_memory_does_nothing(data: bytes) -> None:
    before = bytes(data)
    drop_pages(data)
    assert bytes(data) == before


def test_digests_are_those_of_hashlib(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_map, "_CHUNK_BYTES", 3 * PAGE + 1)
    memory = map_file(path)
    assert sha256_of(memory) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert sha256_of(np.arange(9.0)) == hashlib.sha256(np.arange(9.0).tobytes()).hexdigest()
    assert sha256_of(b"") == hashlib.sha256(b"").hexdigest()


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def test_a_scratch_file_goes_when_nothing_uses_it(temporary: Path) -> None:
    memory = scratch_file(6, [b"abc", np.frombuffer(b"def", dtype=np.uint8)])
    assert memory is not None
    array = np.frombuffer(memory, dtype=np.uint8)
    del memory
    assert array.tobytes() == b"abcdef"
    region = region_at(address_of(array), 6)
    assert region is not None
    assert region.path.read_bytes() == b"abcdef"
    assert region.is_there()
    del array
    gc.collect()
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("why", ["no room", "disk full", "read only"])
def test_where_no_file_can_be_written_there_is_none(
    why: str, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> int:
        raise OSError(28, "No space left on device")

    if why == "no room":
        monkeypatch.setattr(temp_file, "_MARGIN_BYTES", 1 << 60)
    elif why == "disk full":
        monkeypatch.setattr(temp_file, "write_all", fails)
    else:
        monkeypatch.setattr("tempfile.tempdir", str(temporary / "not" / "there"))
    assert scratch_file(3, [b"abc"]) is None
    assert list(temporary.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_a_forked_process_that_ends_leaves_the_file_to_its_parent(temporary: Path) -> None:
    code = """
        import os, sys, tempfile
        from pathlib import Path
        from portrt.format.temp_file import scratch_file
        tempfile.tempdir = sys.argv[1]
        memory = scratch_file(3, [b"abc"])
        child = os.fork()
        if not child:
            sys.exit(0)
        os.waitpid(child, 0)
        print(len(list(Path(sys.argv[1]).glob("*/weights.safetensors"))))
    """
    done = tiny.python(code, str(temporary))
    assert (done.stdout.strip(), done.returncode) == ("1", 0), done.stderr
    assert list(temporary.iterdir()) == []  # at its end
