"""Wrong results of one backend of several: its engine alone loses the operator.

The wrong backend is a toy whose engines are ONNX Runtime's with other kernels; the oracle is the
model in eager PyTorch.
"""

from __future__ import annotations

import json
import logging
from typing import Any

import picky_backend
import pytest
import torch
from harness import assert_same
from torch import nn

import portrt
from portrt.errors import CheckError
from portrt.format.compile_report import CompileReport
from portrt.runtime.calls import manifests_of
from portrt.runtime.policy import policy

CUMSUM = "aten.cumsum.default"
BOTH = ("picky", "onnxruntime")


class Waves(nn.Module):
    """Values of which the sample has none that show a tangent for a sine."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.cumsum(torch.relu(x), 1)
        return self.linear(torch.sin(y) * 2) + 1  # the line at fault


def x_of(rows: int) -> torch.Tensor:
    return torch.rand(rows, 4, generator=torch.Generator().manual_seed(rows))


def compiled(x: torch.Tensor, **options: Any) -> Any:
    options = {"engines": BOTH, "min_block_size": 1, "check_budget": 100.0, **options}
    return portrt.compile(Waves().eval(), inputs=[x], output_format="exported_program", **options)


def shares(program: Any) -> dict[str, int | None]:
    """Backend -> number of the nodes in its parts; None where it has all."""
    (text,) = manifests_of(program)
    return {
        engine["backend"]: engine["parts"]["nodes_in_engines"] if "parts" in engine else None
        for engine in json.loads(text)["engines"]
    }


def assert_every_choice_is_right(program: Any) -> None:
    for engine in BOTH:
        with policy(engines=engine, fallback="error"), torch.no_grad():
            assert_same(program.module()(x_of(3)), Waves()(x_of(3)), 1e-5, 1e-5)


@pytest.mark.parametrize(
    ("refused", "engines", "x", "nodes"),
    [
        ([], BOTH, x_of(3), 5),
        ([CUMSUM], BOTH, x_of(3), 4),
        ([CUMSUM], BOTH[::-1], x_of(3), 4),
        ([], BOTH, torch.zeros(3, 4), 5),  # only drawn inputs show it
        ([CUMSUM], BOTH, torch.zeros(3, 4), 4),
    ],
    ids=["whole", "parts", "second", "drawn", "drawn in parts"],
)
def test_the_operator_leaves_the_engine_of_its_backend(
    refused: list[str],
    engines: tuple[str, ...],
    x: torch.Tensor,
    nodes: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    picky_backend.register(monkeypatch, by_rule=refused, wrong={"Sin": "Tan"})
    reports = list[CompileReport]()
    with caplog.at_level(logging.WARNING, "portrt"):
        program = compiled(x, engines=engines, report=reports.append)

    assert shares(program) == {"picky": nodes, "onnxruntime": None}
    assert_every_choice_is_right(program)
    (line,) = [r.message for r in caplog.records if "it stays in no picky engine" in r.message]
    assert "aten.sin.default (sin)" in line
    assert "# the line at fault" in line
    (partial,) = reports[0].partial_engines
    assert "aten.sin.default" in partial.reason
    assert reports[0].nodes_in_engines == reports[0].nodes


def test_a_backend_that_has_too_little_left_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    picky_backend.register(monkeypatch, wrong={"Sin": "Tan"})
    reports = list[CompileReport]()
    # The block is not the whole model, whose largest part would stay.
    options = {"min_block_size": 4, "torch_executed_ops": {"aten.add.Tensor"}}
    program = compiled(x_of(3), report=reports.append, **options)

    assert shares(program) == {"onnxruntime": None}
    (missing,) = reports[0].missing_engines
    assert missing.backend == "picky"
    assert "aten.sin.default" in missing.reason
    assert "differs from PyTorch" in missing.reason


@pytest.mark.parametrize("refused", [[], [CUMSUM]], ids=["whole", "parts"])
def test_the_error_names_operator_and_backend(
    refused: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    picky_backend.register(monkeypatch, by_rule=refused, wrong={"Sin": "Tan"})
    with pytest.raises(CheckError, match=r"aten.sin.default \(sin\) at .*# the line") as caught:
        compiled(x_of(3), check="error")

    assert caught.value.backend == "picky"
    assert "picky engine" in caught.value.happened


def test_a_backend_alone_leaves_the_operator_to_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    picky_backend.register(monkeypatch, wrong={"Sin": "Tan"})
    program = compiled(x_of(3), engines="picky")

    assert [json.loads(text)["format"] for text in manifests_of(program)] == [1, 1]
    left = [str(n.target) for n in program.graph.nodes if "aten." in str(n.target)]
    assert left == ["aten.sin.default"]
