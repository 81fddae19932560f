"""Constants that no engine computes are computed at compile time, with eager's numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from harness import assert_same
from torch import nn
from torch.export import Dim

import portrt
from portrt.compiler.convert import translation
from portrt.compiler.lower import lower
from portrt.compiler.options.settings import Settings
from portrt.compiler.partition import partition
from portrt.compiler.plan import Plan
from portrt.runtime.calls import engine_calls
from portrt.verdict import YES, Verdict

aten = torch.ops.aten


_LARGE = 300_000


class Of(nn.Module):
    """A function of an input and of tensors that the module holds."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        self.register_buffer("table", torch.arange(6.0).reshape(2, 3))
        self.weight = nn.Parameter(torch.arange(6.0).reshape(2, 3))
        self.plain = torch.tensor([3.0, 4.0, 5.0])

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.function(self, *inputs)


def compiled(function: Callable[..., Any], *inputs: torch.Tensor, **options: Any) -> Any:
    return portrt.compile(
        Of(function).eval(),
        inputs=list(inputs),
        engines="onnxruntime",
        min_block_size=1,
        require_full_compilation=True,
        output_format="exported_program",
        **options,
    )


def plan_of(
    function: Callable[..., Any], x: torch.Tensor, refused: Any = (), **options: Any
) -> Plan:
    """The plan where no engine takes the operators `refused`."""

    def supports(node: torch.fx.Node) -> Verdict:
        if node.target in refused:
            return Verdict.no("unsupported_dtype", "no engine has it")
        return YES if node.target in refused else translation(node)

    program = torch.export.export(Of(function), (x,))
    return partition(
        lower(program), Settings.from_options({"min_block_size": 1, **options}), supports
    )


CONSTANT: dict[str, Callable[..., Any]] = {
    "full": lambda _, x: aten.full.default((5, 3), 0.5),
    "full of a size": lambda _, x: aten.full.default((x.shape[0], x.shape[0] + 1), 0.5),
    "several, one twice": lambda m, x: [torch.arange(3), m.table * 2, m.weight.t() + 1] * 2,
    "empty": lambda _, x: aten.empty.memory_format([x.shape[0], 3]).mul(0).add(1),
    "eye, of bools": lambda _, x: torch.eye(3, dtype=torch.bool).logical_not(),
    "random by nobody": lambda m, x: m.plain.pow(2).to(torch.float64).sum(),
    "no elements": lambda _, x: torch.ones(0, 3),
}


@pytest.mark.parametrize("name", CONSTANT)
def test_a_model_of_constants_is_fully_compiled(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    x = torch.randn(2, 2)
    module = compiled(CONSTANT[name], x).module()

    assert_same(module(x), Of(CONSTANT[name])(x))
    assert "runs in PyTorch" not in caplog.text
    assert "the model returns constants" in caplog.text


def test_a_constant_of_a_dynamic_size_is_in_an_engine() -> None:
    function = CONSTANT["full of a size"]
    program = compiled(
        function, torch.randn(3, 2), dynamic_shapes={"inputs": ({0: Dim("n", max=5)},)}
    )
    module = program.module()

    assert len(list(engine_calls(program))) == 1
    for rows in (1, 3, 5):
        x = torch.randn(rows, 2)
        assert_same(module(x), Of(function)(x))


def test_a_model_without_inputs_is_fully_compiled() -> None:
    program = compiled(lambda m: m.plain * 2 + m.weight)

    assert_same(program.module()(), Of(lambda m: m.plain * 2 + m.weight)().detach())


def test_what_a_caller_writes_to_a_result_is_not_in_the_next() -> None:
    module = compiled(lambda _, x: (torch.ones(3), x + 1), torch.randn(2)).module()
    first, _ = module(torch.randn(2))
    first.fill_(7)

    assert_same(module(torch.randn(2))[0], torch.ones(3))


def test_uninitialized_memory_is_not_stored() -> None:
    program = compiled(lambda _, x: aten.empty.memory_format([7, 3]), torch.randn(2))

    assert_same(program.module()(torch.randn(2)), torch.zeros(7, 3))


def test_a_refused_operator_on_constants_is_folded_with_what_it_needs() -> None:
    def function(m: Any, x: torch.Tensor) -> torch.Tensor:
        return x[:, torch.erfinv(m.table / 9).long()] + 1

    plan = plan_of(function, torch.randn(2, 4), {aten.erfinv.default})

    assert plan.left_out == ()
    assert len(plan.blocks) == 1
    targets = {node.target for node in plan.blocks[0].program.graph.nodes}
    assert aten.erfinv.default not in targets
    assert aten.div.Tensor not in targets


@pytest.mark.parametrize(
    ("function", "refused", "options"),
    [
        (lambda m, x: x + m.weight.erfinv(), {aten.erfinv.default}, {}),  # stored twice
        (
            lambda m, x: torch.ones(_LARGE, 3).erfinv()[:2] + x,
            {aten.erfinv.default},
            {},
        ),
        (lambda m, x: x + torch.rand(3), (), {}),
        (lambda m, x: x + m.table.exp(), (), {"torch_executed_ops": {"aten.exp"}}),
    ],
    ids=["a parameter", "large", "random", "asked for"],
)
def test_what_is_not_folded(function: Any, refused: Any, options: Any) -> None:
    plan = plan_of(function, torch.randn(2, 3), refused, **options)

    assert len(plan.left_out) >= 1


def test_a_large_constant_stays_with_its_reason() -> None:
    def function(_: Any, x: torch.Tensor) -> Any:
        return x.erfinv(), torch.arange(1 << 20) * 3

    plan = plan_of(function, torch.randn(2), {aten.erfinv.default})
    reasons = {item.target: item.reason for item in plan.left_out}
    assert "computes a constant" in reasons["aten.mul.Tensor"]
