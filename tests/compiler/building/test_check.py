"""check: an engine with other numbers is caught at compile time, not delivered."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

import portrt
import portrt.compiler.building.engines as build
from portrt.errors import CheckError
from portrt.numerics.compare import compare


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h = self.linear(x)
        return torch.relu(h), torch.sigmoid(h)


X = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))


def _plant(monkeypatch: pytest.MonkeyPatch, change: Callable[[onnx.ModelProto], None]) -> None:
    """The translation to ONNX goes wrong in the way of `change`."""
    real = build.onnx_from_block

    def wrong(*args: Any) -> Any:
        model = real(*args)
        proto = onnx.load_model_from_string(model.data)
        change(proto)
        return dataclasses.replace(model, data=proto.SerializeToString())

    monkeypatch.setattr(build, "onnx_from_block", wrong)


def _relu_becomes_abs(proto: onnx.ModelProto) -> None:
    for node in proto.graph.node:
        if node.op_type == "Relu":
            node.op_type = "Abs"


def compiled(**options: Any) -> Any:
    return portrt.compile(
        Model().eval(), inputs=[X], engines="onnxruntime", min_block_size=1, **options
    )


def test_wrong_translation_is_caught_and_the_output_named(monkeypatch: pytest.MonkeyPatch) -> None:
    _plant(monkeypatch, _relu_becomes_abs)
    with pytest.raises(CheckError, match="'relu'") as caught:
        compiled(check="error")
    assert "check='accept'" in caught.value.remedy


def test_wrong_numbers_can_be_accepted_and_are_recorded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _plant(monkeypatch, _relu_becomes_abs)
    program = compiled(check="accept", output_format="exported_program")
    assert "'relu'" in caplog.text
    portrt.save(program, tmp_path / "a.pt2")
    (engine,) = portrt.inspect(tmp_path / "a.pt2").blocks[0].engines
    ok = {row["name"]: row["ok"] for row in engine["check"]["outputs"]}
    assert ok == {"relu": False, "sigmoid": True}
    expected = (Model().linear(X).abs() - torch.relu(Model().linear(X))).abs().max().item()
    (row,) = (row for row in engine["check"]["outputs"] if row["name"] == "relu")
    assert row["max_abs"] == pytest.approx(expected, rel=0.01)


def test_check_can_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    _plant(monkeypatch, _relu_becomes_abs)
    found, _ = compiled(check="off")(X)
    torch.testing.assert_close(found, Model().linear(X).abs())


def test_what_cannot_run_here_is_recorded_as_unchecked(tmp_path: Path) -> None:
    program = portrt.compile(
        Model().eval(), inputs=[X], min_block_size=1, output_format="exported_program"
    )
    portrt.save(program, tmp_path / "a.pt2")
    engines = portrt.inspect(tmp_path / "a.pt2").blocks[0].engines
    checks = {engine["backend"]: engine["check"] for engine in engines}
    assert all(row["ok"] for row in checks["onnxruntime"]["outputs"])
    if "tensorrt_rtx" in checks:
        assert "cpu" in checks["tensorrt_rtx"]["skipped"]
    json.dumps(checks, allow_nan=False)


def test_program_without_example_inputs_is_unchecked(tmp_path: Path) -> None:
    exported = torch.export.export(Model().eval(), (X,))
    exported._example_inputs = None
    program = portrt.compile(
        exported, engines="onnxruntime", min_block_size=1, output_format="exported_program"
    )
    portrt.save(program, tmp_path / "a.pt2")
    (engine,) = portrt.inspect(tmp_path / "a.pt2").blocks[0].engines
    assert engine["check"] == {"skipped": "there were no sample inputs"}


def test_engine_that_opens_but_fails_stays_in_pytorch() -> None:
    """ONNX Runtime opens this convolution, and refuses it at the first call."""
    model = torch.nn.ConvTranspose1d(3, 2, 3, stride=2, dilation=3, output_padding=2).eval()
    x = torch.randn(2, 3, 7)
    module = portrt.compile(model, inputs=[x], min_block_size=1)
    torch.testing.assert_close(module(x), model(x))


def test_blocks_behind_pytorch_parts_are_checked_on_real_values(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Chain(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            kept = torch.nonzero(x.flatten()).float() + 1
            return torch.relu(x - 0.5) + kept.sum()

    _plant(monkeypatch, _relu_becomes_abs)
    with pytest.raises(CheckError, match=r"relu|add"):
        portrt.compile(
            Chain(),
            inputs=[X],
            engines="onnxruntime",
            min_block_size=1,
            torch_executed_ops={"aten.nonzero"},
            check="error",
        )


@pytest.mark.parametrize(
    ("got", "wanted", "ok"),
    [
        ([1.0, 2.0], [1.0, 2.0], True),
        ([1.0, 2.0], [1.0, 2.001], True),
        ([1.0, 2.0], [1.0, 2.01], False),
        ([float("nan"), 1.0], [float("nan"), 1.0], True),
        ([float("nan"), 1.0], [0.0, 1.0], False),
        ([0.0, 1.0], [float("nan"), 1.0], False),
        ([float("inf"), 1.0], [float("inf"), 1.0], True),
        ([float("-inf"), 1.0], [float("inf"), 1.0], False),
        ([], [], True),
        ([1e-9], [0.0], True),
        ([1.0], [0.0], False),
    ],
)
def test_comparison_of_float32(got: list[float], wanted: list[float], ok: bool) -> None:
    row = compare("y", torch.tensor(got), torch.tensor(wanted))
    assert row["ok"] is ok
    json.dumps(row, allow_nan=False)


def test_whole_numbers_and_bool_are_exact() -> None:
    big = torch.tensor([2**24, 7])
    assert compare("y", big, big.clone())["ok"]
    assert not compare("y", big, big + torch.tensor([1, 0]))["ok"]
    huge = torch.tensor([2**60])
    assert not compare("y", huge, huge + 1)["ok"]
    assert not compare("y", torch.tensor([True]), torch.tensor([False]))["ok"]


# ---- branches that the sample inputs do not take ------------------------------------------------


class _Branches(torch.nn.Module):
    def forward(self, x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        def inner(t: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
            return torch.cond(t.max() > 1, lambda u, _: u.sin(), lambda u, r: u[r].exp(), (t, rows))

        return torch.cond(x.sum() > 0, lambda t, _: t.relu() * 2, inner, (x, rows)) + 1


def _sine_becomes_cosine(model: onnx.ModelProto) -> None:
    """Wherever it is, in branches too."""
    data = model.SerializeToString().replace(b"\x22\x03Sin", b"\x22\x03Cos")
    model.ParseFromString(data)


@pytest.mark.parametrize(
    "x", [torch.ones(3) * 2, torch.ones(3), -torch.ones(3)], ids=["outer", "both", "inner"]
)
def test_a_branch_that_the_sample_does_not_take_is_compared_too(
    monkeypatch: pytest.MonkeyPatch, x: torch.Tensor
) -> None:
    rows = torch.tensor([0, 1, 2])
    module = portrt.compile(_Branches(), inputs=[x, rows], min_block_size=1)
    for sample in (x, -x, torch.tensor([2.0, -9.0, 0.0])):
        torch.testing.assert_close(module(sample, rows), _Branches()(sample, rows))

    _plant(monkeypatch, _sine_becomes_cosine)
    with pytest.raises(CheckError, match="branches that the sample inputs do not take"):
        portrt.compile(_Branches(), inputs=[x, rows], min_block_size=1, check="error")


def test_a_branch_that_fails_on_the_sample_is_left_alone() -> None:
    rows = torch.tensor([0, 7, 2])  # the branch with x[rows] is not for these
    x = torch.ones(3)
    module = portrt.compile(_Branches(), inputs=[x, rows], min_block_size=1)

    torch.testing.assert_close(module(x, rows), _Branches()(x, rows))


class Places(torch.nn.Module):
    """Indices of the largest numbers, of what it is given and of what it computes."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = x * 2 + 1
        return *torch.topk(x, 5), *torch.sort(y, 0), x.argmax(1), *y.min(1, keepdim=True)


# Few different numbers, so that most of them are equal to others.
TIES = torch.randint(0, 4, (6, 200), generator=torch.Generator().manual_seed(0)).float()


def places(x: torch.Tensor = TIES, **options: Any) -> Any:
    return portrt.compile(
        Places().eval(),
        inputs=[x],
        engines="onnxruntime",
        output_format="exported_program",
        require_full_compilation=True,
        cache_dir="off",
        **options,
    )


def test_other_indices_of_equal_numbers_will_do() -> None:
    assert not torch.equal(places().module()(TIES)[1], torch.topk(TIES, 5).indices)  # it happens
    found = places().module()(TIES)
    assert torch.equal(TIES.gather(1, found[1]), torch.topk(TIES, 5).values)
    assert torch.equal((TIES * 2 + 1).gather(0, found[3]), torch.sort(TIES * 2 + 1, 0).values)


def test_how_many_indices_differ_is_stored(tmp_path: Path) -> None:
    portrt.save(places(), tmp_path / "a.pt2")
    (engine,) = portrt.inspect(tmp_path / "a.pt2").blocks[0].engines
    rows = engine["check"]["outputs"]
    assert all(row["ok"] for row in rows)
    assert rows[1]["ties"] > 0
    assert portrt.files.verify(tmp_path / "a.pt2").ok


def _shifted(proto: onnx.ModelProto, kind: str, by: int) -> None:
    """The indices of the first node of a kind become others: (index + by) % 6, all within range."""
    graph = proto.graph
    node = next(node for node in graph.node if node.op_type == kind)
    name = node.output[-1]
    node.output[-1] = "right"
    for tensor, value in (("by", by), ("six", 6)):
        graph.initializer.append(onnx.numpy_helper.from_array(np.array(value), tensor))
    graph.node.extend(
        [
            onnx.helper.make_node("Add", ["right", "by"], ["more"]),
            onnx.helper.make_node("Mod", ["more", "six"], [name]),
        ]
    )
    _sort_nodes(proto)


def _smallest(proto: onnx.ModelProto) -> None:
    """The indices of the smallest numbers beside the largest numbers."""
    graph = proto.graph
    (node,) = (n for n in graph.node if n.op_type == "TopK" and n.input[0] == "x")
    other = onnx.helper.make_node("TopK", list(node.input), ["unused", node.output[1]], largest=0)
    node.output[1] = "right"
    graph.node.append(other)
    _sort_nodes(proto)


def _all_the_first(proto: onnx.ModelProto) -> None:
    """One index again and again: each of them leads to the right number where all are equal."""
    graph = proto.graph
    (node,) = (n for n in graph.node if n.op_type == "TopK" and n.input[0] == "x")
    name = node.output[1]
    node.output[1] = "right"
    graph.node.append(onnx.helper.make_node("Sub", ["right", "right"], [name]))
    _sort_nodes(proto)


def _sort_nodes(proto: onnx.ModelProto) -> None:
    """Each node after those that it reads."""
    import onnx_ir as ir

    model = ir.from_proto(proto)
    model.graph.sort()
    proto.CopyFrom(ir.to_proto(model))


@pytest.mark.parametrize("change", [_smallest, _all_the_first])
def test_wrong_indices_are_caught_among_equal_numbers(
    change: Callable[[onnx.ModelProto], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    _plant(monkeypatch, change)
    with pytest.raises(CheckError, match="differs from PyTorch"):
        places(torch.ones_like(TIES) if change is _all_the_first else TIES, check="error")


@pytest.mark.parametrize("kind", ["ArgMax", "TopK"])
def test_wrong_indices_are_caught_among_different_numbers(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _plant(monkeypatch, lambda proto: _shifted(proto, kind, 1))
    with pytest.raises(CheckError):
        places(torch.randn(6, 200, generator=torch.Generator().manual_seed(0)), check="error")
