"""numerics="fast": what NaN in maxima and wrong indices cost is left out, and nothing else."""

from __future__ import annotations

import logging
from typing import Any

import onnx
import pytest
import tiny
import torch
from models import lambda_module
from torch import nn

import portrt
from portrt.errors import EngineError
from portrt.numerics.fast_extremes import takes_nan

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
INDEX = torch.tensor([[[[0, 1, 2, 7, 3, 3, 5, 6]]]]).expand(2, 3, 4, 8)


class Extremes(nn.Module):
    """Each operator that has a form for NaN, and two that have one for indices."""

    def forward(self, x: torch.Tensor, index: torch.Tensor) -> tuple[torch.Tensor, ...]:
        values, positions = x.min(dim=1)
        return (
            nn.functional.max_pool2d(x, 3, stride=2, padding=1),
            x.amax((0, 2)),
            x.amin(),
            x.max(),
            values,
            positions,
            x.argmax(0),
            x.argmin(-1),
            torch.zeros(2, 3, 8, 8).scatter_reduce(2, index, x, "amax"),
            x.gather(2, index),
            torch.maximum(x, x.flip(0)),
            x.clamp(min=0),
        )


def compiled(model: nn.Module, *inputs: Any, **options: Any) -> Any:
    options = {"engines": "onnxruntime", "min_block_size": 1, **options}
    return portrt.compile(
        model.eval(), inputs=list(inputs), output_format="exported_program", **options
    )


def entry(program: Any) -> dict[str, Any]:
    found: dict[str, Any] = tiny.call_of(program).engine("onnxruntime")
    return found


def kinds(program: Any) -> set[str]:
    call = tiny.call_of(program)
    data = call.blobs[entry(program)["data"]["blob"]].numpy().tobytes()
    return {node.op_type for node in onnx.ModelProto.FromString(data).graph.node}


def same(found: Any, wanted: Any) -> bool:
    pairs = zip(found, wanted, strict=True)
    return all(torch.equal(a.nan_to_num(9e9), b.nan_to_num(9e9)) for a, b in pairs)


@pytest.fixture(scope="module")
def exact() -> Any:
    return compiled(Extremes(), X, INDEX)


@pytest.fixture(scope="module")
def fast() -> Any:
    return compiled(Extremes(), X, INDEX, numerics="fast")


def with_nan() -> torch.Tensor:
    x = X.clone()
    x[0, 1, 2, 3] = x[1, 2, 7, 7] = float("nan")
    return x


def test_the_operators_are_plain(exact: Any, fast: Any) -> None:
    plain = {"MaxPool", "ReduceMax", "ReduceMin", "ScatterElements", "ArgMax"}
    assert plain <= kinds(fast)
    assert not {"If", "IsNaN", "BitwiseAnd"} & kinds(fast)
    assert {"If", "IsNaN", "BitwiseAnd"} <= kinds(exact)
    assert entry(fast)["build"]["numerics"] == "fast"
    assert "numerics" not in entry(exact)["build"]


def test_finite_numbers_are_eagers(exact: Any, fast: Any) -> None:
    for x in (X, -X, X.round(), torch.full_like(X, float("-inf"))):
        wanted = Extremes()(x, INDEX)
        assert same(fast.module()(x, INDEX), wanted)
        assert same(exact.module()(x, INDEX), wanted)


def test_nan_is_eagers_in_exact_engines_alone(exact: Any, fast: Any) -> None:
    x = with_nan()
    wanted = Extremes()(x, INDEX)
    assert same(exact.module()(x, INDEX), wanted)
    found = fast.module()(x, INDEX)
    differing = [not same([a], [b]) for a, b in zip(found, wanted, strict=True)]
    assert differing == [True] * 7 + [False, True] + [False] * 3  # else a form costs for nothing


def test_a_negative_index_is_refused_by_exact_engines_alone(exact: Any, fast: Any) -> None:
    index = INDEX.clone()
    index[0, 0, 0, 0] = -1
    with pytest.raises(EngineError):
        exact.module()(X, index)
    assert torch.equal(fast.module()(X, index)[-3], X.gather(2, index % 8))


@pytest.mark.parametrize("check", ["fallback", "error"])
def test_the_check_allows_what_fast_leaves_open(
    check: str, caplog: pytest.LogCaptureFixture
) -> None:
    def pooled(x: torch.Tensor) -> torch.Tensor:
        return nn.functional.max_pool2d(x.relu(), 2).sum((2, 3)) * 2

    x = with_nan()
    with caplog.at_level(logging.WARNING, logger="portrt"):
        program = compiled(lambda_module(pooled)(), x, numerics="fast", check=check)
    assert not [line for line in caplog.messages if "PyTorch" in line]
    assert "numerics" in entry(program)["check"]["skipped"]
    torch.testing.assert_close(program.module()(X), pooled(X))
    exact = compiled(lambda_module(pooled)(), x, check=check)
    torch.testing.assert_close(exact.module()(x), pooled(x), equal_nan=True)
    assert "skipped" not in entry(exact)["check"]


@pytest.mark.parametrize(
    ("function", "wanted"),
    [
        (lambda x: x.amax(1) + 1, True),
        (lambda x: (x * 2).max(), True),
        (lambda x: torch.cond(x.sum() != 9, lambda y: y.amin(1), lambda y: y.sum(1), (x,)), True),
        (lambda x: x.nan_to_num().amax(1), False),
        (lambda x: torch.maximum(x, x + 1).sum(), False),
        (lambda x: x.isnan().any(), False),
    ],
)
def test_a_graph_is_searched_for_nan_in_maxima(function: Any, wanted: bool) -> None:
    program = torch.export.export(lambda_module(function)(), (torch.ones(2, 3),))
    module = program.run_decompositions({}).graph_module
    assert not takes_nan(module, [torch.ones(2, 3)])
    assert takes_nan(module, [torch.full((2, 3), float("nan"))]) is wanted
