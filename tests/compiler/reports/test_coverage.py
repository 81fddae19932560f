"""Reports: coverage by operators and operations, reasons, source lines, in the log and the file."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from models import CASES
from torch import nn

import portrt
import portrt.compiler.attempts as compiler
from portrt import cli
from portrt.errors import PackageError, SaveError, SettingsError
from portrt.format.compile_report import CompileReport
from portrt.graphs.source_line import source_line

X = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.first(x))
        y = y + torch.rand_like(y) * 0  # stays in PyTorch
        return torch.sigmoid(self.second(y))


LINE = next(
    index
    for index, text in enumerate(Path(__file__).read_text().splitlines(), 1)
    if text.endswith("# stays in PyTorch")
)


def reported(model: nn.Module | None = None, x: Any = X, **options: Any) -> CompileReport:
    found: list[CompileReport] = []
    options = {"engines": "onnxruntime", "min_block_size": 1, **options}
    portrt.compile((model or Model()).eval(), inputs=[x], report=found.append, **options)
    (report,) = found
    return report


def test_a_report_counts_operators_and_operations() -> None:
    report = reported()
    # linear, relu | rand_like | mul, add, linear, sigmoid
    assert (report.nodes, report.nodes_in_engines) == (7, 6)
    assert report.flops == report.flops_in_engines == 2 * 4 * 8 * 16 + 2 * 4 * 16 * 4
    assert sum(block.nodes for block in report.blocks) == 6
    assert "6 of 7 operators" in report.summary()


def test_a_fallback_has_operator_line_reason_and_remedy() -> None:
    (item,) = reported().fallbacks
    assert item.operator.startswith("aten.rand")
    assert item.source == (
        f"test_coverage.py:{LINE} in forward: y = y + torch.rand_like(y) * 0 # stays in PyTorch"
    )
    assert "random numbers" in item.reason
    assert item.remedy == "take the random numbers as an input"
    assert not item.asked


def test_the_share_of_what_a_user_keeps_is_counted_and_its_module_named() -> None:
    report = reported(torch_executed_modules="second")
    assert report.flops - report.flops_in_engines == 2 * 4 * 16 * 4
    item = report.fallbacks[0]
    assert (item.operator, item.module, item.asked) == ("aten.linear.default", "second", True)
    assert item.flops == 2 * 4 * 16 * 4


@pytest.mark.parametrize(
    ("model", "shape", "flops"),
    [
        (lambda: nn.Conv2d(3, 8, 3), (2, 3, 10, 10), 2 * 2 * 8 * 8 * 8 * 3 * 9),
        (lambda: nn.Bilinear(4, 5, 6), None, None),
        (lambda: nn.MultiheadAttention(8, 2, batch_first=True), None, None),
        (lambda: nn.Tanh(), (2, 3), 0),
    ],
    ids=["conv", "bilinear", "attention", "tanh"],
)
def test_operations_are_those_of_torchs_counter(model: Any, shape: Any, flops: int | None) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    made = model().eval()
    args = [torch.randn(shape)] if shape else [torch.randn(3, 4), torch.randn(3, 5)]
    if isinstance(made, nn.MultiheadAttention):
        args = [torch.randn(2, 5, 8, requires_grad=True)] * 3
    with FlopCounterMode(display=False) as counter:
        made(*args)
    found: list[CompileReport] = []
    portrt.compile(
        made,
        inputs=[arg.detach() for arg in args],
        engines="onnxruntime",
        min_block_size=1,
        report=found.append,
    )
    assert found[0].flops == counter.get_total_flops()
    assert flops is None or found[0].flops == flops


def test_equal_calls_are_one_entry() -> None:
    class Repeated(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(5):
                x = torch.relu(x) + torch.rand_like(x) * 0
            return x

    report = reported(Repeated())
    assert [item.count for item in report.fallbacks] == [5]


def test_small_blocks_say_what_to_do() -> None:
    report = reported(min_block_size=5)
    reasons = {item.reason for item in report.fallbacks}
    assert "its block has 2 operators, min_block_size is 5" in reasons
    remedies = {item.remedy for item in report.fallbacks if "min_block_size" in item.reason}
    assert remedies == {"lower min_block_size"}


# ---- where it goes ------------------------------------------------------------------------------


def test_a_report_is_written_printed_and_stored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options: dict[str, Any] = {"engines": "onnxruntime", "min_block_size": 1}
    program = portrt.compile(
        Model().eval(),
        inputs=[X],
        report=tmp_path / "a.json",
        output_format="exported_program",
        **options,
    )
    written = json.loads((tmp_path / "a.json").read_text())
    torch.export.save(program, tmp_path / "a.pt2")  # torch's own
    stored = portrt.inspect(tmp_path / "a.pt2").report
    assert stored is not None
    assert json.loads(json.dumps(stored.to_json())) == written
    assert CompileReport.from_json(written) == stored

    portrt.compile(Model().eval(), inputs=[X], report=True, **options)
    assert capsys.readouterr().out.splitlines() == list(stored.lines())

    result = CliRunner().invoke(cli.cli, ["inspect", "--report", str(tmp_path / "a.pt2")])
    assert result.exit_code == 0
    assert result.output.splitlines() == list(stored.lines())
    result = CliRunner().invoke(cli.cli, ["inspect", "--report", "--json", str(tmp_path / "a.pt2")])
    assert json.loads(result.output) == written


def test_no_folder_of_the_machine_is_in_the_file(tmp_path: Path) -> None:
    program = portrt.compile(
        Model().eval(),
        inputs=[X],
        engines="onnxruntime",
        min_block_size=1,
        output_format="exported_program",
    )
    texts = [node.args[2] for node in program.graph.nodes if len(node.args) == 3]
    assert any("test_coverage.py:" in str(text) for text in texts)
    folder = str(Path(__file__).parent)
    assert not any(folder in str(text) for text in texts)


def test_a_file_stays_the_same_through_edits(tmp_path: Path) -> None:
    path = tmp_path / "a.pt2"
    program = CASES["mlp_static"].compile()
    portrt.save(program, path)
    before = portrt.inspect(path).report
    portrt.files.add_engine(path, "onnxruntime", precision="fp16")
    portrt.files.strip(path, source=True)
    assert before is not None
    assert portrt.inspect(path).report == before


def test_a_program_from_the_cache_gives_the_same_report(tmp_path: Path) -> None:
    model = CASES["mlp_static"].model()
    x = torch.randn(3, 4)
    found = [reported(model, x, cache_dir=tmp_path) for _ in range(2)]
    assert found[0] == found[1]


def test_a_program_without_engines_is_reported() -> None:
    report = reported(
        torch_executed_modules="*",
        torch_executed_ops=["aten.add", "aten.relu", "aten.sigmoid", "aten.mul"],
    )
    assert report.nodes_in_engines == 0
    assert report.blocks == ()


def test_dryrun_prints_and_gives_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    report = reported(dryrun=True)
    text = capsys.readouterr().out
    assert report.summary() in text
    assert f"test_coverage.py:{LINE}" in text
    assert "take the random numbers as an input" in text


def test_fallbacks_are_said_before_anything_is_built(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    said: list[str] = []

    def build(*_: Any) -> Any:
        said.append(caplog.text)
        raise KeyboardInterrupt

    monkeypatch.setattr(compiler, "engines_of_block", build)
    with caplog.at_level(logging.WARNING, logger="portrt"), pytest.raises(KeyboardInterrupt):
        reported()
    assert f"test_coverage.py:{LINE}" in said[0]
    assert "take the random numbers as an input" in said[0]


def test_what_the_user_asked_for_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="portrt"):
        reported(CASES["mlp_static"].model(), torch.randn(3, 4), torch_executed_ops="aten.relu")
    assert "in PyTorch" not in caplog.text


def test_a_path_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SaveError, match="the report could not be written"):
        portrt.compile(
            Model().eval(),
            inputs=[X],
            engines="onnxruntime",
            min_block_size=1,
            report=tmp_path / "nowhere" / "a.json",
        )
    with pytest.raises(SettingsError, match="report is 3"):
        portrt.Settings.from_options({"report": 3})


@pytest.mark.parametrize(
    "edit",
    [
        lambda raw: raw.pop("nodes"),
        lambda raw: raw.update(nodes=-1),
        lambda raw: raw.update(blocks="none"),
        lambda raw: raw.update(fallbacks=[3]),
        lambda raw: raw["fallbacks"][0].update(reason="\x1b[31m"),
        lambda raw: raw["fallbacks"][0].update(asked=1),
    ],
)
def test_a_report_that_is_none_is_refused(edit: Any) -> None:
    raw = json.loads(json.dumps(reported().to_json()))
    edit(raw)
    with pytest.raises(PackageError):
        CompileReport.from_json(raw)


# ---- source lines -------------------------------------------------------------------------------

TRACE = """  File "/home/me/project/model.py", line 7, in forward
    y = self.layer(x)
  File "/opt/venv/lib/python3.11/site-packages/transformers/models/bert/modeling.py", line 3, in f
    return self.linear(x)
  File "/opt/venv/lib/python3.11/site-packages/torch/nn/modules/linear.py", line 134, in forward
    return F.linear(input, self.weight, self.bias)
"""


@pytest.mark.parametrize(
    ("trace", "wanted"),
    [
        (None, ""),
        ("nothing of a trace", ""),
        (TRACE, "transformers/models/bert/modeling.py:3 in f: return self.linear(x)"),
        (
            TRACE.split("  File", 2)[0] + "  File" + TRACE.split("  File", 2)[1],
            "model.py:7 in forward: y = self.layer(x)",
        ),
        ('File "C:\\\\me\\\\model.py", line 2, in forward\n', "model.py:2 in forward"),
    ],
)
def test_the_line_is_the_innermost_outside_torch(trace: str | None, wanted: str) -> None:
    assert source_line(trace) == wanted
