"""Models as modelopt leaves them: calls of `tensorrt::quantize_op` around every matrix product.

modelopt is not among what the tests install: its operator is defined here as modelopt computes it
on a CPU, and the model calls it as one that modelopt quantized does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import quantized_models
import torch
from quantized_models import BuilderInput, difference
from torch import nn

import portrt
from portrt.compiler.backends import registry
from portrt.runtime.calls import engine_calls

RTX = registry.builder("tensorrt_rtx").can_build()
needs_tensorrt_rtx = pytest.mark.skipif(not RTX, reason=str(RTX))

X = quantized_models.inputs()


def quantize_op(
    x: torch.Tensor,
    amax: torch.Tensor,
    num_bits: int,
    exponent_bits: int,
    unsigned: bool,
    narrow_range: bool,
) -> torch.Tensor:
    if exponent_bits == 4:
        scale = 448.0 / amax
        return (x * scale).clamp(-448, 448).to(torch.float8_e4m3fn).to(x.dtype) / scale
    high = 2.0 ** (num_bits - 1 + unsigned) - 1
    low = 0 if unsigned else -high if narrow_range else -high - 1
    return (x * (high / amax)).round().clamp(low, high) / (high / amax)


if not hasattr(torch.ops.tensorrt, "quantize_op"):
    torch.library.define(
        "tensorrt::quantize_op",
        "(Tensor input, Tensor amax, int num_bits, int exponent_bits, bool unsigned, "
        "bool narrow_range) -> Tensor",
    )
    torch.library.impl("tensorrt::quantize_op", "cpu")(quantize_op)
    torch.library.register_fake("tensorrt::quantize_op")(lambda x, *rest: torch.empty_like(x))

FORMS = {  # bits, exponent bits, narrow range; whether each output of a weight has its own scale
    "float8": (8, 4, False, False),
    "int8": (8, 0, False, True),
    "int8 in a narrow range": (8, 0, True, True),
}


class Quantized(nn.Linear):
    """What modelopt makes of a linear layer; the largest numbers are calibrated."""

    def quantize(self, form: tuple[int, int, bool, bool]) -> None:
        self.form = form
        largest = self.weight.detach().abs()
        self.register_buffer("weight_amax", largest.amax(1, True) if form[3] else largest.max())
        self.register_buffer("amax", torch.tensor(2.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bits, exponent, narrow, _ = self.form
        op = torch.ops.tensorrt.quantize_op
        x = op(x, self.amax, bits, exponent, False, narrow)
        weight = op(self.weight, self.weight_amax, bits, exponent, False, narrow)
        return nn.functional.linear(x, weight, self.bias)


def quantized(form: tuple[int, int, bool, bool]) -> nn.Module:
    model = quantized_models.layer()
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.__class__ = Quantized
            module.quantize(form)
    return model


def compiled(model: nn.Module, engine: str, **options: Any) -> Any:
    return portrt.compile(
        model, inputs=[X], engines=engine, output_format="exported_program", **options
    )


@pytest.mark.parametrize("form", FORMS)
def test_it_is_one_engine_with_the_numbers_of_the_quantized_model(
    form: str, tmp_path: Path
) -> None:
    model = quantized(FORMS[form])
    program = compiled(model, "onnxruntime", require_full_compilation=True)
    assert len(list(engine_calls(program))) == 1
    wanted, unquantized = model(X), quantized_models.layer()(X)
    # A number on the border of two steps may become the other one.
    assert difference(program.module()(X), wanted) < 0.3 * difference(wanted, unquantized)
    portrt.save(program, tmp_path / "a.pt2")
    (engine,) = portrt.inspect(tmp_path / "a.pt2").blocks[0].engines
    assert engine["build"]["precision"] == f"fp32+{'fp8' if form == 'float8' else 'int8'}"


@needs_tensorrt_rtx
@pytest.mark.parametrize("form", FORMS)
def test_tensorrt_rtx_builds_it_with_quantizers_before_each_product(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine cannot run here; ONNX Runtime runs what it was built from."""
    model = quantized(FORMS[form])
    given = BuilderInput(monkeypatch)
    compiled(model, "tensorrt_rtx", require_full_compilation=True, cache_dir="off")
    wanted, unquantized = model(X), quantized_models.layer()(X)
    assert difference(given.run(X, tmp_path), wanted) < 0.3 * difference(wanted, unquantized)
    made_by = {output: node for node in given.nodes() for output in node.output}
    products = [node for node in given.nodes() if node.op_type in ("MatMul", "Gemm")]
    fed = [
        {made_by[name].op_type for name in node.input[:2] if name in made_by} for node in products
    ]
    assert fed.count({"DequantizeLinear", "Transpose"}) + fed.count({"DequantizeLinear"}) >= 6


def test_other_grids_stay_in_pytorch_with_the_reason(tmp_path: Path) -> None:
    model = quantized((4, 0, True, False))
    report: list[Any] = []
    program = compiled(model, "onnxruntime", report=report.append)
    torch.testing.assert_close(program.module()(X), model(X), rtol=1e-5, atol=1e-5)
    assert any("tensorrt.quantize_op" in str(node.target) for node in program.graph.nodes)
    assert "tensorrt.quantize_op" in str(report[0])
