"""A call that ONNX Runtime expands to nodes without names, for which it has no kernel."""

from __future__ import annotations

import onnx
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from models import lambda_module
from onnx import parser

import portrt
from portrt.compiler.backends.onnxruntime.refusals import nodes_at_fault, refused_by_dtypes
from portrt.runtime.calls import engine_calls

_MESSAGE = "Could not find an implementation for Erf(13) node with name ''"


def _model(text: str) -> bytes:
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["" : 22]> {text}')
    onnx.checker.check_model(model)
    return model.SerializeToString()


def test_calls_without_a_kernel_are_named() -> None:
    data = _model(
        "g (double[N] x, float[N] z) => (double[N] b, float[N] c) {"
        "  [one] a = Mish(x) [two] b = Gelu(a) [three] c = Gelu(z) }"
    )
    assert nodes_at_fault(_MESSAGE, data) == ("one", "two")


def test_a_message_that_names_a_node_is_enough() -> None:
    data = _model("g (double[N] x) => (double[N] y) { [one] y = Mish(x) }")
    assert nodes_at_fault("Could not find ... node with name 'two'", data) == ()


@pytest.mark.parametrize("function", [F.mish, F.gelu, F.hardswish], ids=lambda f: f.__name__)
def test_the_other_operators_are_in_engines(function: object) -> None:
    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return function(torch.exp(x) + 1) * 2  # type: ignore[operator]

    x = torch.linspace(-2, 2, 7, dtype=torch.float64)
    program = portrt.compile(
        Model(),
        inputs=[x],
        engines="onnxruntime",
        min_block_size=1,
        output_format="exported_program",
    )
    assert len(list(engine_calls(program))) == 2
    torch.testing.assert_close(program.module()(x), Model()(x))


def test_all_nodes_that_are_refused_for_their_dtypes_are_found() -> None:
    data = _model(
        "g (double[N] x, float[N] z, int16[N] i) => (double[N] a, double[N] b, float[N] c,"
        " int16[N] d, float[N] e, double[N] f) {"
        "  [one] a = Tan(x) [two] b = Mish(x) [three] c = Tan(z)"
        "  [four] d = Max(i, i) [five] e = Mish(z) [six] f = Tan(b) }"
    )
    message = "Could not find an implementation for Tan(22) node with name 'one'"
    assert [node.name for node in refused_by_dtypes(message, data)] == ["one", "two", "four", "six"]
    assert refused_by_dtypes("Shapes do not match in node 'one'", data) == []


def test_more_operators_without_a_kernel_than_there_are_attempts() -> None:
    names = ["acos", "acosh", "asin", "asinh", "atan", "atanh", "cosh", "sinh", "tan"]
    functions = [*(getattr(torch, name) for name in names), F.selu, F.celu, F.softsign]

    def computed(x: torch.Tensor) -> list[torch.Tensor]:
        return [*(function(x) for function in functions), torch.exp(x) * 2]

    x = torch.linspace(-0.9, 0.9, 7, dtype=torch.float64)
    program = portrt.compile(
        lambda_module(computed)(),
        inputs=[x],
        engines="onnxruntime",
        min_block_size=1,
        output_format="exported_program",
    )
    assert len(list(engine_calls(program))) >= 1
    for found, wanted in zip(program.module()(x), computed(x), strict=True):
        torch.testing.assert_close(found, wanted, equal_nan=True)
