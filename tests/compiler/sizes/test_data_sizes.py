"""Sizes that the data decides: inside engines, as their outputs, and across PyTorch."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from harness import assert_same
from torch import nn
from torch.export import ExportedProgram

import portrt
from portrt.errors import EngineError
from portrt.format.manifest import DataDependentSize, decode
from portrt.runtime.calls import engine_calls
from portrt.runtime.policy import policy

aten = torch.ops.aten
X = portrt.Input(min_shape=(1, 4), opt_shape=(5, 4), max_shape=(9, 4))


def module(function: Callable[..., Any]) -> nn.Module:
    class Function(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return function(x)

    return Function().eval()


def compiled(model: nn.Module, **options: Any) -> ExportedProgram:
    return portrt.compile(
        model,
        inputs=[X],
        engines=options.pop("engines", "onnxruntime"),
        min_block_size=1,
        cache_dir="off",
        output_format="exported_program",
        **options,
    )


def in_pytorch(program: ExportedProgram) -> set[Any]:
    targets = {n.target for n in program.graph.nodes if isinstance(n.target, torch._ops.OpOverload)}
    return targets - {torch.ops.portrt.execute_engine.default, aten.sym_size.int}


def calls() -> list[torch.Tensor]:
    """Some hits, none, and all; one row, and as many as there may be."""
    some = torch.randn(5, 4)
    return [some, -some.abs() - 1, some.abs() + 1, torch.randn(1, 4), torch.randn(9, 4)]


def assert_right(program: ExportedProgram, model: nn.Module) -> None:
    """In the engine, from the source, and saved and loaded."""
    kept = io.BytesIO()
    torch.export.save(program, kept)
    kept.seek(0)
    runs = [program.module(), torch.export.load(kept).module()]
    for x in calls():
        want = model(x)
        for run in runs:
            assert_same(run(x), want, 1e-5, 1e-6)
            with policy(engines=()), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that it runs in PyTorch
                assert_same(run(x), want, 1e-5, 1e-6)


MODELS = {
    "outputs": lambda x: (torch.nonzero(x > 0), x[x > 0] * 2, x[x.sum(1) > 0]),
    "inside": lambda x: (x[x > 0] * 2).sum() + torch.nonzero(x > 0).sum(),
    "selected": lambda x: torch.masked_select(x.tanh(), x > 0) + 1,
    "unique": lambda x: torch.unique(x.round().long(), return_inverse=True, return_counts=True),
    "size": lambda x: torch.full((torch.nonzero(x > 0).shape[0], 2), 3.0) * x.sum(),
    "computed size": lambda x: (torch.nonzero(x > 0).reshape(-1) * 2).sum(),
    "one for the other": lambda x: x[torch.nonzero(x > 0)[:, 0]].softmax(-1),
}


@pytest.mark.parametrize("name", MODELS)
def test_sizes_from_data_are_in_one_engine(name: str) -> None:
    model = module(MODELS[name])

    program = compiled(model)

    assert in_pytorch(program) == set()
    assert len(list(engine_calls(program.graph_module))) == 1
    assert_right(program, model)


def test_what_is_computed_from_a_truth_of_the_data_stays_with_it() -> None:
    """As transformers checks how many places an image has in a text."""

    def checked(x: torch.Tensor) -> torch.Tensor:
        torch._check_tensor_all(x.abs() >= 0)
        return ((x * 2).relu() + 1) @ torch.ones(4, 3)

    model = module(checked)
    program = compiled(model)
    assert list(engine_calls(program))
    assert_right(program, model)


def test_sizes_of_outputs_are_unknown_and_bounded() -> None:
    program = compiled(module(lambda x: torch.nonzero(x > 0)))

    (call,) = engine_calls(program.graph_module)
    (output,) = decode(call.args[2]).outputs
    assert output.shape == (DataDependentSize(36, output.shape[0].symbol), 2)


def test_a_module_called_directly_gives_other_sizes_at_each_call() -> None:
    model = module(lambda x: torch.nonzero(x > 0))
    direct = portrt.compile(model, inputs=[X], engines="onnxruntime", cache_dir="off")

    for x in [*calls(), *calls()]:
        assert_same(direct(x), model(x))


def test_engines_around_pytorch_hand_such_sizes_on() -> None:
    """relu between them stays in PyTorch; so the second engine has an input of unknown size."""
    model = module(lambda x: (torch.relu(x[x > -1] * 2) + 1).reshape(-1, 1).expand(-1, 3) * x.sum())

    program = compiled(model, torch_executed_ops={"aten.relu"})

    assert in_pytorch(program) == {aten.relu.default}
    assert_right(program, model)


def test_an_operator_that_pytorch_runs_may_decide_the_size() -> None:
    model = module(lambda x: torch.nonzero(x * 2 > 0).float().sin() @ torch.ones(2, 3))

    program = compiled(model, torch_executed_ops={"aten.nonzero"})

    assert in_pytorch(program) == {aten.nonzero.default}
    assert_right(program, model)


def test_a_size_computed_from_one_of_data_is_not_given_by_an_engine() -> None:
    model = module(lambda x: torch.full((torch.nonzero(x > 0).shape[0] + 1, 2), 3.0) * x.sum())

    program = compiled(model)

    assert in_pytorch(program) == {aten.mul.Tensor, aten.full.default}
    assert_right(program, model)


@pytest.mark.parametrize("inside", [False, True])
def test_what_the_model_checks_is_checked(inside: bool) -> None:
    def few(x: torch.Tensor) -> torch.Tensor:
        found = x[x > 0]
        torch._check(found.shape[0] <= 7)
        return (found * 2).sum() if inside else found * 2

    model = module(few)
    run = compiled(model).module()

    few_hits = torch.tensor([[1.0, -1, 2, -3]])
    assert_same(run(few_hits), model(few_hits))
    with pytest.raises((RuntimeError, EngineError), match=r"<= 7|at most 7"):
        run(torch.ones(2, 4))


def test_other_operators_of_such_sizes_stay_with_the_reason() -> None:
    told: list[Any] = []
    model = module(lambda x: torch.repeat_interleave(x, (x[:, 0] > 0).long() + 1, dim=0) * 2)

    program = compiled(model, report=told.append)

    assert "depends on data" in str(told[0].to_json())
    assert_right(program, model)


def test_tensorrt_rtx_leaves_them_to_pytorch(capsys: pytest.CaptureFixture[str]) -> None:
    compiled(module(lambda x: torch.nonzero(x.tanh() > 0)), engines="tensorrt_rtx", dryrun=True)

    assert "depends on data" in capsys.readouterr().out


def test_dryrun_prints_a_data_dependent_size(capsys: pytest.CaptureFixture[str]) -> None:
    compiled(module(lambda x: torch.nonzero(x.tanh() > 0)), dryrun=True)

    assert re.search(r"nonzero: int64\(u\d+\[0\.\.\d*\], 2\)", capsys.readouterr().out)
