"""Files that loaded programs are mapped from, written again by torch itself."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from tiny import python

from portrt.errors import SaveError
from portrt.format.memory_map import map_file, set_aside


def test_torch_saves_over_the_file_of_a_loaded_program(saved: Path, tmp_path: Path) -> None:
    """Where it would truncate the file, the process would end at the next access."""
    done = python(
        """
        import os, sys, io
        from pathlib import Path
        import torch, portrt
        from torch.export.pt2_archive._package import package_pt2

        source, folder = Path(sys.argv[1]), Path(sys.argv[2])
        file, link, other = folder / "a.pt2", folder / "link.pt2", folder / "other.pt2"
        file.write_bytes(source.read_bytes())
        link.symlink_to("a.pt2")
        x = torch.ones(3, 8)
        wanted = torch.export.load(source).module()(x)

        first = portrt.load(file)
        for save in (
            lambda: torch.export.save(first, file),
            lambda: torch.export.save(first, str(link)),
            lambda: package_pt2(str(file), exported_programs={"model": first}),
            lambda: torch.export.save(portrt.load(file), file),
        ):
            save()
            assert link.is_symlink()
            for program in (first, torch.export.load(file), portrt.load(link, verify=True)):
                assert torch.equal(program.module()(x), wanted)

        # Other files are written as ever: in place, or to a buffer.
        torch.export.save(first, other)
        before = other.stat().st_ino
        torch.export.save(first, other)
        assert other.stat().st_ino == before
        buffer = io.BytesIO()
        torch.export.save(first, buffer)
        assert torch.equal(torch.export.load(buffer).module()(x), wanted)
        """,
        str(saved),
        str(tmp_path),
    )
    assert done.returncode == 0, (done.returncode, done.stderr)


def test_only_a_mapped_file_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"content")
    set_aside(path)
    set_aside(tmp_path / "nothing")
    assert path.read_bytes() == b"content"
    memory = map_file(path)
    (tmp_path / "link").symlink_to("a")
    set_aside(tmp_path / "link")
    assert not path.exists()
    assert memory[:] == b"content"
    path.write_bytes(b"next")
    set_aside(path)  # another file of that name
    assert path.read_bytes() == b"next"
    del memory
    again = map_file(path)
    del again
    set_aside(path)  # no longer mapped
    assert path.read_bytes() == b"next"


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="everything is writable")
def test_a_mapped_file_that_cannot_be_replaced_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"content")
    memory = map_file(path)
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(SaveError, match="is in use by a program"):
            set_aside(path)
    finally:
        tmp_path.chmod(0o700)
    assert path.read_bytes() == memory[:] == b"content"
