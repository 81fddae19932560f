"""A node that the parser of TensorRT-RTX refuses stays in PyTorch, and engines are built around it;
where another backend takes the node, it is in that one's engine.

The parser and the builder are the real ones. No machine without an RTX GPU runs such an engine: the
numbers are those of the blocks' sources, which PyTorch runs instead.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import assert_same
from torch import nn
from torch.export import ExportedProgram

import portrt
from portrt import files
from portrt.compiler.backends import registry
from portrt.format.compile_report import CompileReport
from portrt.runtime.calls import manifests_of
from portrt.runtime.select import FallbackWarning

RTX = registry.builder("tensorrt_rtx").can_build()
pytestmark = pytest.mark.skipif(not RTX, reason=str(RTX))
aten = torch.ops.aten


class Determinant(nn.Module):
    """The parser names the node."""

    refused = aten.linalg_det.default
    words = "operator: Det (checkDet): UNSUPPORTED_NODE"

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Linear(9, 9)
        self.after = nn.Linear(1, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        matrices = self.before(x).tanh().reshape(-1, 3, 3)
        volumes = torch.linalg.det(matrices)  # refused
        return self.after(volumes.unsqueeze(-1)).relu()

    def inputs(self) -> list[torch.Tensor]:
        return [torch.randn(5, 9)]


class LargeScatter(nn.Module):
    """The parser says no more than that it is a scatter; it is too large to be rewritten."""

    refused = aten.scatter_add.default
    words = "Unsupported reduction type"

    def forward(self, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        sums = torch.zeros_like(x).scatter_add(0, index, x.tanh() * 2)  # refused
        return sums.sigmoid() + 1

    def inputs(self) -> list[torch.Tensor]:
        return [torch.randn(6000, 2), torch.randint(0, 6000, (6000, 2))]


@pytest.mark.parametrize("kind", [Determinant, LargeScatter])
def test_engines_are_built_around_what_the_parser_refuses(kind: type[Any]) -> None:
    torch.manual_seed(0)
    model = kind().eval()
    inputs = model.inputs()
    reports: list[CompileReport] = []
    program = portrt.compile(
        model,
        inputs=inputs,
        engines="tensorrt_rtx",
        min_block_size=1,
        output_format="exported_program",
        report=reports.append,
    )
    assert isinstance(program, ExportedProgram)

    engines = [json.loads(text)["engines"] for text in manifests_of(program)]
    assert [[engine["backend"] for engine in made] for made in engines] == [["tensorrt_rtx"]] * 2
    targets = [node.target for node in program.graph.nodes if node.op == "call_function"]
    assert [t for t in targets if str(t).startswith("aten.")] == [kind.refused]

    (left,) = reports[0].fallbacks
    assert left.operator == str(kind.refused)
    assert kind.words in left.reason
    assert "torch_executed_ops" in left.remedy
    assert left.source.startswith("test_partial_refusal.py:")
    assert left.source.endswith("# refused")

    with pytest.warns(FallbackWarning, match="tensorrt_rtx: no: it takes cuda tensors"):
        found = program.module()(*inputs)
    assert_same(found, model(*inputs), 1e-6, 1e-6)


@pytest.mark.parametrize("kind", [Determinant, LargeScatter])
def test_what_the_parser_refuses_is_in_the_engine_of_onnxruntime(
    kind: type[Any], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = kind().eval()
    inputs = model.inputs()
    reports: list[CompileReport] = []
    program = portrt.compile(
        model,
        inputs=inputs,
        engines=("tensorrt_rtx", "onnxruntime"),
        min_block_size=1,
        require_full_compilation=True,
        output_format="exported_program",
        report=reports.append,
    )
    assert isinstance(program, ExportedProgram)

    (text,) = manifests_of(program)
    rtx, ort = json.loads(text)["engines"]
    assert (rtx["backend"], ort["backend"]) == ("tensorrt_rtx", "onnxruntime")
    parts = rtx["parts"]["engines"]
    assert [part["requires"] for part in parts] == [rtx["requires"]] * 2
    assert rtx["parts"]["nodes"] - rtx["parts"]["nodes_in_engines"] == 1
    (partial,) = reports[0].partial_engines
    assert partial.reason.startswith(f"{kind.refused}: ")
    assert kind.words in partial.reason

    assert_same(program.module()(*inputs), model(*inputs), 1e-6, 1e-6)  # onnxruntime
    portrt.save(program, tmp_path / "model.pt2")
    there = files.check(tmp_path / "model.pt2", "os=linux,arch=x86_64,sm=89").blocks[0]
    assert there.runs_as == "tensorrt_rtx"
    assert there.engines[0].verdict.reason.startswith("in 2 parts, with 1 of ")
