"""check="fallback": the operator whose results differ stays in PyTorch, alone, with the reason."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from custom_ops import shifted_relu
from models import lambda_module
from onnxscript import opset23 as op
from torch import nn
from torch.export import Dim

import portrt
from portrt.compiler.lower.decompositions import DECOMPOSITIONS
from portrt.errors import CheckError, PartitionError
from portrt.runtime.calls import manifests_of

aten = torch.ops.aten
SHIFTED_RELU = "portrt_tests::shifted_relu"
X = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))


def compiled(model: nn.Module, x: torch.Tensor = X, **options: Any) -> Any:
    options = {"engines": "onnxruntime", "min_block_size": 1, "check_budget": 100.0, **options}
    return portrt.compile(model.eval(), inputs=[x], output_format="exported_program", **options)


def programs(program: Any) -> list[Any]:
    """What was compared, by engine."""
    entries = [json.loads(text) for text in manifests_of(program)]
    return [engine["check"].get("program") for entry in entries for engine in entry["engines"]]


class Elus(nn.Module):
    """Two calls of one operator; a planted decomposition is wrong for the second alone."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.sigmoid(self.first(nn.functional.elu(x)))
        return torch.tanh(self.second(nn.functional.elu(h - 0.5, alpha=2.0)))  # the line at fault


def elu_without_alpha(x: torch.Tensor, alpha: float = 1.0, *_: Any) -> Any:
    return torch.where(x > 0, x, torch.expm1(x)) if alpha != 1.0 else NotImplemented


def plant(monkeypatch: pytest.MonkeyPatch, target: Any, wrong: Callable[..., Any]) -> None:
    monkeypatch.setitem(DECOMPOSITIONS, target, wrong)


def test_a_wrong_decomposition_leaves_its_call_alone_in_pytorch(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plant(monkeypatch, aten.elu.default, elu_without_alpha)
    seen: list[Any] = []
    with caplog.at_level(logging.WARNING, logger="portrt"):
        program = compiled(Elus(), report=seen.append)
    model = Elus()
    with torch.no_grad():
        torch.testing.assert_close(program.module()(X), model(X))
    (report,) = seen
    (left,) = report.fallbacks
    assert (left.operator, left.count) == ("aten.elu.default", 1)
    assert "the line at fault" in left.source
    assert "once it is decomposed" in left.reason
    assert report.nodes_in_engines == report.nodes - 1
    said = [
        record.getMessage() for record in caplog.records if "is planned again" in record.message
    ]
    assert len(said) == 1
    assert "(4, 16)" in said[0] and "test_fallback.py" in said[0]
    assert all(found["compared"] > 1 for found in programs(program))


def test_a_wrong_decomposition_is_an_error_that_names_the_operator(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plant(monkeypatch, aten.elu.default, elu_without_alpha)
    with pytest.raises(
        CheckError, match=r"aten\.elu\.default \(elu_1\) at test_fallback.py"
    ) as err:
        compiled(Elus(), check="error")
    assert "the line at fault" in err.value.happened
    assert "check='fallback'" in err.value.remedy
    with pytest.raises(PartitionError, match=r"aten\.elu"):
        compiled(Elus(), require_full_compilation=True)


def test_a_wrong_decomposition_can_be_accepted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plant(monkeypatch, aten.elu.default, elu_without_alpha)
    program = compiled(Elus(), check="accept")
    assert len(manifests_of(program)) == 1
    assert "accepted" in caplog.text
    with torch.no_grad():
        assert not torch.allclose(program.module()(X), Elus()(X))


def test_what_a_buffer_becomes_is_compared_too(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("total", torch.zeros(8))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.total.add_(nn.functional.elu(x, alpha=2.0).sum(0))
            return torch.sigmoid(x) * 2

    plant(monkeypatch, aten.elu.default, elu_without_alpha)
    module = compiled(Counts()).module()
    model = Counts()
    torch.testing.assert_close(module(X), model(X))
    torch.testing.assert_close(module.total, model.total)


def test_a_fault_that_no_operator_is_left_out_for_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def negate(module: torch.fx.GraphModule) -> None:
        for node in module.graph.find_nodes(op="call_function", target=aten.sigmoid.default):
            node.target = aten.tanh.default

    monkeypatch.setattr("portrt.compiler.lower.GRAPH_PASSES", (negate,))
    with pytest.raises(CheckError, match=r"aten\.sigmoid\.default"):
        compiled(lambda_module(lambda x: torch.sigmoid(x) * 2)())


# ---- engines with other numbers -----------------------------------------------------------------


class Shifted(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return shifted_relu(x * 2, 0.25) * 3 + 1


def wrong_everywhere(x: Any, shift: float) -> Any:
    return op.Relu(op.Add(x, op.CastLike(shift, x)))


def wrong_for_other_sizes(x: Any, shift: float) -> Any:
    """Right for four rows."""
    rows = op.Cast(op.Squeeze(op.Shape(x, start=0, end=1)), to=1)
    return op.Add(op.Relu(op.Sub(x, op.CastLike(shift, x))), op.Sub(rows, op.CastLike(4.0, x)))


def wrong_for_large_values(x: Any, shift: float) -> Any:
    """Right up to 100, which the sample does not reach."""
    return op.Clip(op.Relu(op.Sub(x, op.CastLike(shift, x))), None, op.CastLike(100.0, x))


def wrong_for_zeros(x: Any, shift: float) -> Any:
    right = op.Relu(op.Sub(x, op.CastLike(shift, x)))
    return op.Where(op.Equal(x, op.CastLike(0.0, x)), op.CastLike(7.0, x), right)


ROWS = {"dynamic_shapes": ({0: Dim("rows", min=1, max=16)},)}


@pytest.mark.parametrize(
    ("wrong", "options"),
    [
        (wrong_everywhere, {}),
        (wrong_for_other_sizes, ROWS),
        (wrong_for_large_values, {}),
        (wrong_for_zeros, {}),
    ],
)
def test_a_wrong_translation_leaves_its_operator_in_pytorch(
    wrong: Callable[..., Any], options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[Any] = []
    translations = {SHIFTED_RELU: wrong}
    program = compiled(Shifted(), translations=translations, report=seen.append, **options)
    for x in (X, X * 1e3, X * 0, X[:2] if options else X):
        torch.testing.assert_close(program.module()(x), Shifted()(x))
    (left,) = seen[0].fallbacks
    assert left.operator == "portrt_tests.shifted_relu.default"
    assert "the onnxruntime engine" in left.reason
    assert seen[0].nodes_in_engines == seen[0].nodes - 1
    assert caplog.text.count("is planned again") == 1
    with pytest.raises(CheckError, match=r"portrt_tests\.shifted_relu\.default"):
        compiled(Shifted(), translations=translations, check="error", **options)


def test_without_a_budget_the_sample_alone_is_compared() -> None:
    options: dict[str, Any] = {"translations": {SHIFTED_RELU: wrong_for_zeros}, "check_budget": 0}
    program = compiled(Shifted(), **options)
    (found,) = programs(program)
    assert (found["compared"], found["sizes"]) == (1, {})
    assert not torch.allclose(program.module()(X * 0), Shifted()(X * 0))


def test_each_engine_of_a_block_is_compared(tmp_path: Path) -> None:
    program = compiled(
        Elus(), engines=["onnxruntime", {"backend": "onnxruntime", "precision": "fp16"}]
    )
    first, second = programs(program)
    assert first["compared"] > 1
    assert second is None  # its rounding was compared with the block, and would count here
    portrt.save(program, tmp_path / "a.pt2")
    assert portrt.inspect(tmp_path / "a.pt2").blocks[0].engines[0]["check"]["program"] == first


def test_a_program_with_random_numbers_is_compared_by_block() -> None:
    program = compiled(lambda_module(lambda x: torch.sigmoid(x * 2) + torch.rand_like(x))())
    (entry,) = (json.loads(text) for text in manifests_of(program))
    (engine,) = entry["engines"]
    assert engine["check"].keys() == {"device", "outputs"}
