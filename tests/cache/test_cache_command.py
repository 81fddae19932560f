"""`portrt cache`: where, list, check, prune; without torch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tiny import compiled, python

from portrt.cli import cli


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PORTRT_CACHE_DIR", str(tmp_path))
    compiled("onnxruntime")
    return tmp_path


def run(*args: str) -> Result:
    width = {"COLUMNS": "120"}  # no cell is in two lines
    return CliRunner(env=width).invoke(cli, ["cache", *args], catch_exceptions=False)


def test_where(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("where").output.strip() == str(folder)
    monkeypatch.setenv("PORTRT_CACHE_DIR", "off")
    assert run("where").output.strip() == "off"


def test_list_names_backend_version_block_and_size(folder: Path) -> None:
    import onnxruntime

    output = run("list").output
    assert "2 entries" in output
    assert f"onnxruntime {onnxruntime.__version__}" in output
    assert "block_0" in output
    assert "ago" in output
    models = [entry["meta"]["model"] for entry in json.loads(run("list", "--json").output)]
    assert len(models) == 2
    assert all(name and name.rpartition(".")[2] in output for name in models)


def test_list_prints_the_parts_of_every_key(folder: Path) -> None:
    output = run("list", "--parts").output
    entries = json.loads(run("list", "--json").output)
    assert {entry["kind"] for entry in entries} == {"engine", "program"}
    for entry in entries:
        assert entry["name"] in output
        for name, digest in entry["parts"].items():
            assert name in output and digest[:16] in output
    sizes = {entry["name"]: entry["bytes"] for entry in entries}
    assert sizes == {p.parent.name: p.stat().st_size for p in folder.glob("v1/*/data")}


def test_check_removes_what_is_damaged(folder: Path) -> None:
    done = run("check")
    assert (done.exit_code, done.output) == (0, "2 of 2 entries are whole\n")
    (path,) = folder.glob("v1/engine-*/data")
    path.write_bytes(path.read_bytes()[:-1])
    done = run("check")
    assert done.exit_code == 1
    assert f"removed {path.parent.name}: it has" in done.output
    assert "1 of 2 entries are whole" in done.output
    assert not path.parent.exists()
    assert run("check").exit_code == 0


def test_prune(folder: Path) -> None:
    assert run("prune").output.startswith("removed 0 entries; 2 are left")
    (program,) = folder.glob("v1/program-*")
    size = sum(path.stat().st_size for path in program.iterdir())
    assert run("prune", "--max-bytes", str(size + 10)).output.startswith(
        "removed 1 entries; 1 are left"
    )
    assert run("prune", "--all").output.startswith("removed 1 entries; 0 are left")
    assert list(folder.glob("v1/*/data")) == []


def test_a_cache_that_is_off_or_options_that_clash_are_errors_of_three_parts(folder: Path) -> None:
    for env, args in (("off", ("list",)), (str(folder), ("prune", "--all", "--max-bytes", "5"))):
        code = (
            f"import sys\nfrom portrt.cli import main\nsys.argv[1:] = {['cache', *args]!r}\nmain()"
        )
        done = python(code, PORTRT_CACHE_DIR=env)
        assert done.returncode == 2
        assert "Expected: " in done.stderr and "Do: " in done.stderr


def test_it_needs_no_torch(folder: Path) -> None:
    code = """
    import sys
    from portrt.cli import main
    sys.argv[1:] = ["cache", "check"]
    try:
        main()
    except SystemExit:
        pass
    assert "torch" not in sys.modules
    """
    done = python(code, PORTRT_CACHE_DIR=str(folder))
    assert done.returncode == 0, done.stderr
