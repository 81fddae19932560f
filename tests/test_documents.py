"""What the documents say is what the code does: examples run, fields and files exist."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import pytest
from torch.export import ExportedProgram

from portrt import cli
from portrt.format import manifest, size_expr
from portrt.format.archive import Archive, engine_calls
from portrt.targets.backends import BACKENDS

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out


def test_readme_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(import torch, portrt.*?)```", _read("README.md"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    assert (tmp_path / "model.pt2").exists()


@pytest.mark.parametrize(
    "document",
    ["README.md", "CHANGELOG.md", "docs/architecture.md", "docs/extending.md", "docs/format.md"],
)
def test_links_lead_somewhere(document: str) -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", _read(document)):
        assert (ROOT / document).parent.joinpath(target).exists(), target


def test_architecture_names_files_that_exist() -> None:
    text = _read("docs/architecture.md")
    for name in re.findall(r"`((?:\w+/)*\w+(?:\.py|/))`", text):
        assert (ROOT / "src" / "portrt" / name).exists(), name
    folders = {path.name for path in (ROOT / "src" / "portrt").iterdir() if path.is_dir()}
    for folder in folders - {"__pycache__"}:
        assert f"`{folder}/`" in text, folder


def test_format_page_has_every_field(program_file: Path) -> None:
    text = _read("docs/format.md")
    (call,) = engine_calls(Archive(program_file))
    raw = json.loads(call.text)
    for key in {*raw, *raw["engines"][0], *raw["engines"][0]["build"], *raw["weights"]}:
        assert re.search(rf"\b{key}\b", text), key
    for name in (*size_expr.OPERATORS, *BACKENDS):
        assert name in text
    assert f"version {manifest.FORMAT}" in text
    for version, entry in manifest.FORMAT_HISTORY.items():
        assert re.search(rf"\| {version} \| {entry[:10]} \|", text)


def test_readme_names_every_command_and_engine() -> None:
    text = _read("README.md")
    for command in cli.COMMANDS:
        assert f"portrt {command}" in text
    for backend in BACKENDS:
        assert f"`{backend}`" in text


def _read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def program_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    import portrt

    path = tmp_path_factory.mktemp("documents") / "a.pt2"
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU()).eval()
    program = portrt.compile(
        model, inputs=[torch.randn(2, 4)], engines="onnxruntime", output_format="exported_program"
    )
    assert isinstance(program, ExportedProgram)
    portrt.save(program, path)
    return path
