"""Backends of other packages, made visible as an installed distribution is: by its metadata."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch
from tiny import model, python

from portrt.targets.backends import BUILT_IN, ENTRY_POINTS

try:
    import tomllib
except ModuleNotFoundError:  # before Python 3.11
    import tomli as tomllib  # type: ignore[no-redef]

PACKAGE = Path(__file__).parents[2] / "examples" / "backend_package"
PROJECT = tomllib.loads((PACKAGE / "pyproject.toml").read_text(encoding="utf-8"))
NAME = "onnx_reference"


def distribution(folder: Path, name: str, version: str, entries: dict[str, str]) -> None:
    """Metadata of an installed distribution with backends."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    (info / "METADATA").write_text(text, encoding="utf-8")
    lines = "".join(f"{key} = {value}\n" for key, value in entries.items())
    (info / "entry_points.txt").write_text(f"[{ENTRY_POINTS}]\n{lines}", encoding="utf-8")


def path_of(*folders: Path) -> str:
    """A PYTHONPATH with these folders, and the tests' helpers, first."""
    folders = (*folders, Path(tiny.__file__).parent)
    return os.pathsep.join([*map(str, folders), os.environ.get("PYTHONPATH", "")])


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The PYTHONPATH of a process in which the example is installed."""
    folder = tmp_path_factory.mktemp("site")
    project = PROJECT["project"]
    entries = project["entry-points"][ENTRY_POINTS]
    distribution(folder, project["name"], project["version"], entries)
    return path_of(folder, PACKAGE / "src")


def ran(code: str, *args: str, **env: str) -> Any:
    """What the code prints last, as JSON."""
    done = python(code, *args, **env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


COMPILE = """
    import json, sys, torch, portrt
    from tiny import compiled
    from portrt.errors import SettingsError
    program = compiled("onnx_reference", cache_dir="off", reference_opset=20)
    portrt.save(program, sys.argv[1])
    block, = portrt.inspect(sys.argv[1]).to_json()["blocks"]
    refused = []
    for option in ({"reference_opset": 17}, {"reference_opsets": 20}):
        try:
            compiled("onnx_reference", **option)
        except SettingsError as err:
            refused.append(str(err))
    print(json.dumps([block["engines"], refused]))
"""
RUN = """
    import json, sys, warnings
    import torch, portrt
    from portrt.runtime.select import FallbackWarning
    program = torch.export.load(sys.argv[1])
    x = torch.linspace(-1, 1, 24).view(3, 8)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", FallbackWarning)
        y = program.module()(x)
    report, = portrt.runtime.report(program)
    found = [[name, verdict.ok, verdict.code] for name, verdict in report.verdicts]
    ours = sorted(name for name in sys.modules if name.startswith("portrt.compiler"))
    print(json.dumps([y.tolist(), report.runs_as, found, ours, len(caught)]))
"""
CHECK = """
    import json, sys
    from portrt import files
    verdict = files.check(sys.argv[1])
    engine = verdict.blocks[0].engines[0]
    found = [verdict.outcome, engine.backend, engine.verdict.code, engine.verdict.remedy]
    print(json.dumps([*found, "torch" in sys.modules]))
"""


@dataclass(frozen=True)
class Made:
    """What a process compiled in which the example is installed.

    Attributes:
        path: The file.
        engine: Its engine, of an opset that the backend's own option says.
        refused: The errors of a wrong value and of a wrong name of that option.
    """

    path: str
    engine: dict[str, Any]
    refused: list[str]


@pytest.fixture(scope="module")
def made(installed: str, tmp_path_factory: pytest.TempPathFactory) -> Made:
    path = str(tmp_path_factory.mktemp("backend") / "tiny.pt2")
    (engine,), refused = ran(COMPILE, path, PYTHONPATH=installed)
    return Made(path, engine, refused)


@pytest.fixture(scope="module")
def file(made: Made) -> str:
    assert made.engine["backend"] == NAME
    assert made.engine["check"]["outputs"][0]["ok"]
    return made.path


def test_its_own_option_is_taken_and_checked(made: Made) -> None:
    assert made.engine["build"]["opset"] == 20
    value, name = made.refused
    assert "reference_opset is 17" in value and "from 18 to" in value
    assert "reference_opsets" in name and "did you mean 'reference_opset'?" in name


def test_the_project_is_one_that_setuptools_builds() -> None:
    assert PROJECT["build-system"]["build-backend"] == "setuptools.build_meta"
    (where,) = PROJECT["tool"]["setuptools"]["packages"]["find"]["where"]
    assert [path.parent.name for path in (PACKAGE / where).rglob("__init__.py")] == [NAME]
    assert PROJECT["project"]["entry-points"] == {ENTRY_POINTS: {NAME: f"{NAME}:BACKEND"}}
    assert "portrt" in PROJECT["project"]["dependencies"]


def test_its_engine_runs_in_a_new_process_without_a_compiler(file: str, installed: str) -> None:
    y, runs_as, verdicts, compilers, warnings = ran(RUN, file, PYTHONPATH=installed)
    x = torch.linspace(-1, 1, 24).view(3, 8)
    torch.testing.assert_close(torch.tensor(y), model()(x).detach())
    assert (runs_as, verdicts, compilers, warnings) == (NAME, [[NAME, True, "ok"]], [], 0)


def test_the_file_is_judged_without_torch(file: str, installed: str) -> None:
    found = ran(CHECK, file, PYTHONPATH=installed)
    assert found == ["engine", NAME, "ok", "", False]


def test_where_it_is_not_installed_the_engine_is_unknown_and_the_source_runs(file: str) -> None:
    y, runs_as, verdicts, _, warnings = ran(RUN, file)
    x = torch.linspace(-1, 1, 24).view(3, 8)
    torch.testing.assert_close(torch.tensor(y), model()(x).detach())
    assert (runs_as, verdicts, warnings) == ("eager", [[NAME, False, "unknown_backend"]], 1)
    outcome, _, code, remedy, _ = ran(CHECK, file)
    assert (outcome, code) == ("fallback", "unknown_backend")
    assert "the package that adds this backend" in remedy


def test_every_list_of_backends_has_it_last(installed: str) -> None:
    code = """
        import json, portrt, torch
        from portrt.files import Target
        from portrt.runtime import policy
        from portrt.targets import backends
        from portrt.targets.this_machine import this_machine
        with policy(engines=["onnx_reference"]):
            pass
        doctor = [status.name for status in portrt.doctor().backends]
        target = Target.parse("onnx=1.17").versions
        print(json.dumps([backends.names(), doctor, target, sorted(this_machine().versions)]))
    """
    names, doctor, target, libraries = ran(code, PYTHONPATH=installed)
    assert names == doctor == [*BUILT_IN, NAME]
    assert target == {"onnx": "1.17"}
    assert "onnx" in libraries


def test_commands_know_it(file: str, installed: str) -> None:
    code = """
        import sys
        from portrt.cli import main
        sys.argv = ["portrt", "check", sys.argv[1], "--for", "os=linux,onnx=1.15"]
        main()
    """
    done = python(code, file, PYTHONPATH=installed, COLUMNS="200")
    assert "needs onnx 1.16 or newer, and 1.15 is installed" in " ".join(done.stdout.split()), done


ROW = 'BackendInfo(name="{}", runtime="nowhere:Runtime", builder="nowhere:Builder")'
BROKEN = {
    "not_there": ("not_there:ROW", "ModuleNotFoundError: No module named 'not_there'"),
    "no_attribute": ("rows:MISSING", "AttributeError"),
    "no_row": ("rows:TEXT", "it is a str, not a BackendInfo"),
    "other_name": ("rows:SOMETHING", "its row has the name 'something'"),
    "tensorrt": ("rows:TENSORRT", "a backend of portrt has this name"),
    "raises": ("raising:ROW", "RuntimeError: not here"),
}


@pytest.fixture
def broken(tmp_path: Path) -> str:
    lines = [
        "from portrt.targets.backends import BackendInfo",
        "TEXT = 'text'",
        *(f"{name.upper()} = {ROW.format(name)}" for name in ("something", "tensorrt")),
    ]
    (tmp_path / "rows.py").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "raising.py").write_text("raise RuntimeError('not here')", encoding="utf-8")
    entries = {name: value for name, (value, _) in BROKEN.items()}
    entries["something"] = "rows:SOMETHING"  # its row is right, its code is not there
    distribution(tmp_path, "broken-backends", "1.0", entries)
    return path_of(tmp_path)


def test_a_broken_entry_point_is_one_warning_and_hurts_no_other_backend(broken: str) -> None:
    code = """
        import json, logging
        records = []
        class Keep(logging.Handler):
            def emit(self, record):
                records.append(record.getMessage())
        logging.getLogger("portrt.targets").addHandler(Keep())
        import torch, portrt
        from tiny import compiled
        from portrt.targets import backends
        names = [backends.names(), backends.names()]
        statuses = {status.name: status for status in portrt.doctor().backends}
        compiled("onnxruntime", cache_dir="off")
        something = statuses["something"]
        verdicts = [something.builds.reason, something.runs["cpu"].reason]
        print(json.dumps([names, records, bool(statuses["onnxruntime"].builds), verdicts]))
    """
    names, records, able, verdicts = ran(code, PYTHONPATH=broken)
    assert names == [[*BUILT_IN, "something"]] * 2
    assert len(records) == len(BROKEN)
    for name, (value, reason) in BROKEN.items():
        (record,) = (
            text for text in records if text.startswith(f"the backend {name!r} is skipped")
        )
        assert value in record
        assert reason in record
    assert able
    assert all("nowhere:" in verdict and "cannot be imported" in verdict for verdict in verdicts)


def test_two_packages_with_one_name(tmp_path: Path) -> None:
    row = f"from portrt.targets.backends import BackendInfo\nROW = {ROW.format('twice')}"
    for name in ("first", "second"):
        (tmp_path / f"{name}.py").write_text(row, encoding="utf-8")
        distribution(tmp_path, name, "1.0", {"twice": f"{name}:ROW"})
    code = """
        import json, logging
        from portrt.targets import backends
        logging.basicConfig(format="%(message)s")
        print(json.dumps(backends.names()))
    """
    done = python(code, PYTHONPATH=path_of(tmp_path))
    assert json.loads(done.stdout) == [*BUILT_IN, "twice"]
    assert "another package has a backend of this name" in done.stderr
    assert "'second:ROW'" in done.stderr


def test_entry_points_are_read_at_need_alone(broken: str, tmp_path: Path) -> None:
    """Neither `import torch` nor an engine of portrt's own backends reads them."""
    path = tmp_path / "own.pt2"
    code = """
        import sys, torch
        assert "portrt.targets.backends" not in sys.modules
        torch.export.load(sys.argv[1]).module()(torch.ones(2, 8))
        from portrt.targets import backends
        assert backends._installed.cache_info().currsize == 0
    """
    from tiny import shared

    import portrt

    portrt.save(shared("onnxruntime"), path)
    done = python(code, str(path), PYTHONPATH=broken)
    assert done.returncode == 0, done.stderr


def test_a_builder_of_programs_takes_nodes_that_onnx_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether torch.onnx translates a node counts for builders that read ONNX alone."""
    from portrt.compiler import compile as compiling
    from portrt.compiler.building.tasks import EngineTask
    from portrt.compiler.capture import capture
    from portrt.compiler.options.settings import Settings
    from portrt.compiler.parts import cut
    from portrt.verdict import YES, Verdict

    class Builder:
        name = "fake"

        def __init__(self, reads: Any) -> None:
            self.input = reads

        def can_build(self, settings: Any = None) -> Verdict:
            return YES

        def supports(self, node: torch.fx.Node) -> Verdict:
            return YES

        def build(self, *_: Any) -> Any:
            raise AssertionError

    refused = Verdict.no("no_translation", "torch.onnx has no translation for it")
    monkeypatch.setattr(cut, "translation", lambda *_, **__: refused)
    settings = Settings(min_block_size=1)
    captured = capture(model(), [torch.zeros(3, 8)])

    def blocks(*reads: str) -> int:
        tasks: Any = [EngineTask(Builder(kind), settings) for kind in reads]
        return len(compiling._plan(captured, settings, tasks, {}, {}).blocks)

    assert blocks("onnx") == 0
    assert blocks("program") == 1
    assert blocks("program", "onnx") == 1  # a block is what at least one takes


def test_a_builder_of_programs_keeps_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Precision is lowered in the ONNX model, which such a builder does not read."""
    from portrt.compiler.building import precision
    from portrt.targets.backends import BackendInfo

    row = BackendInfo(name="fake", runtime="nowhere:Runtime")
    monkeypatch.setitem(BUILT_IN, "fake", row)
    for reads, kept in (("program", True), ("onnx", False)):
        monkeypatch.setattr(precision, "builder", lambda _, r=reads: SimpleNamespace(input=r))
        assert bool(precision.reason_for_float32("fake", "fp16")) is kept
        assert precision.reason_for_float32("fake", None) == ""
