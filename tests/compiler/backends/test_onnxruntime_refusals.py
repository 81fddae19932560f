"""A call that ONNX Runtime expands to nodes without names, for which it has no kernel."""

from __future__ import annotations

import onnx
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from onnx import parser

import portrt
from portrt.compiler.backends.onnxruntime.refusals import nodes_at_fault
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
