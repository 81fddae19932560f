"""Quantized models, as PyTorch's pt2e flow writes them: int8 in ONNX, in the file, in engines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
import tiny
import torch
import torch.ao.quantization.fx._decomposed  # it defines the operators
from models import lambda_module
from torch import nn

import portrt
from portrt.compiler.backends import registry
from portrt.runtime.select import FallbackWarning

RTX = registry.builder("tensorrt_rtx").can_build()
needs_tensorrt_rtx = pytest.mark.skipif(not RTX, reason=str(RTX))

qd = torch.ops.quantized_decomposed


class QuantizedLinear(nn.Module):
    """What convert_pt2e makes of a linear layer: int8 weights by channel, int8 inputs."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        weight = torch.randn(outputs, inputs)
        scales = weight.abs().amax(1).double() / 127
        rounded = torch.round(weight / scales[:, None].float()).clamp(-127, 127)
        self.register_buffer("weight", rounded.to(torch.int8))
        self.register_buffer("scales", scales)
        self.register_buffer("zero_points", torch.zeros(outputs, dtype=torch.int64))
        self.bias = nn.Parameter(torch.randn(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        step = 3.0 / 127
        x = qd.quantize_per_tensor.default(x, step, 0, -127, 127, torch.int8)
        x = qd.dequantize_per_tensor.default(x, step, 0, -127, 127, torch.int8)
        weight = qd.dequantize_per_channel.default(
            self.weight, self.scales, self.zero_points, 0, -127, 127, torch.int8
        )
        return nn.functional.linear(x, weight, self.bias)


class QuantizedBlock(nn.Module):
    """The feed-forward half of a transformer layer, with 3-D inputs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = QuantizedLinear(32, 64), QuantizedLinear(64, 32)
        self.norm = nn.LayerNorm(32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x + self.second(nn.functional.gelu(self.first(x))))


X = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(0))


def compiled(model: Any, *inputs: torch.Tensor, **options: Any) -> Any:
    options = {"engines": "onnxruntime", "min_block_size": 1, **options}
    return portrt.compile(model, inputs=inputs, output_format="exported_program", **options)


def test_a_quantized_block_is_one_engine_with_eagers_numbers(tmp_path: Path) -> None:
    model = QuantizedBlock().eval()
    program = compiled(model, X, require_full_compilation=True)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(X), model(X), rtol=1e-5, atol=1e-5)
    path = tmp_path / "a.pt2"
    portrt.save(program, path)
    (block,) = portrt.inspect(path).blocks
    (engine,) = block.engines
    assert engine["build"]["precision"] == "fp32+int8"


def test_int8_weights_stay_int8_in_the_file_and_in_onnx() -> None:
    call = tiny.call_of(compiled(QuantizedBlock().eval(), X))
    image = call.blobs[call.entry["weights"]["blob"]]
    header = json.loads(bytes(image[8 : 8 + int(image[:8].view(torch.int64))].tolist()))
    assert header["first.weight"]["dtype"] == "I8"
    assert image.numel() < 2 * 2 * 32 * 64  # float32 weights alone would be twice that
    data = call.blobs[call.engine("onnxruntime")["data"]["blob"]].numpy().tobytes()
    graph = onnx.ModelProto.FromString(data).graph
    kinds = [node.op_type for node in graph.node]
    assert kinds.count("QuantizeLinear") == 2
    assert kinds.count("DequantizeLinear") == 4
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    assert types["first.weight"] == onnx.TensorProto.INT8


@pytest.mark.parametrize(
    ("low", "high", "zero", "dtype"),
    [
        (-128, 127, 0, torch.int8),
        (-127, 127, 0, torch.int8),
        (-64, 63, 5, torch.int8),
        (0, 255, 128, torch.uint8),
        (0, 127, 64, torch.uint8),  # reduced range, for CPUs without VNNI
    ],
)
def test_numbers_are_cut_to_the_range_of_the_quantizer(
    low: int, high: int, zero: int, dtype: torch.dtype
) -> None:
    """torch.onnx alone would cut them to the range of the dtype."""

    def quantize(x: torch.Tensor) -> torch.Tensor:
        q = qd.quantize_per_tensor.default(x, 0.05, zero, low, high, dtype)
        return qd.dequantize_per_tensor.default(q, 0.05, zero, low, high, dtype) * 1.5

    x = torch.linspace(-20, 20, 1601)
    program = compiled(lambda_module(quantize)(), x, require_full_compilation=True)
    found, wanted = program.module()(x), quantize(x)
    assert found.max() == wanted.max()
    assert found.min() == wanted.min()
    steps = (found - wanted).abs() / (0.05 * 1.5)
    assert steps.max() < 1.01  # a tie may be rounded to the other step
    assert (steps > 0.01).float().mean() < 0.02


def test_the_source_runs_where_nobody_imported_the_operators(tmp_path: Path) -> None:
    model, path = QuantizedBlock().eval(), tmp_path / "a.pt2"
    portrt.save(compiled(model, X), path)
    with torch.no_grad():
        torch.save((X, model(X)), tmp_path / "io.pt")
    done = tiny.python(
        """
        import sys, torch
        x, y = torch.load(sys.argv[2])
        module = torch.export.load(sys.argv[1]).module()
        torch.testing.assert_close(module(x), y, rtol=1e-5, atol=1e-5)
        """,
        str(path),
        str(tmp_path / "io.pt"),
        PORTRT_ENGINES="",
    )
    assert done.returncode == 0, done.stderr


def test_what_is_not_quantized_stays_exact_beside_int8_weights() -> None:
    """ONNX Runtime alone would round the inputs to int8 too, for a product with such weights."""
    weight = torch.randint(-127, 128, (32, 64), generator=torch.Generator().manual_seed(0))
    weight = weight.to(torch.int8)

    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("weight", weight)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            args = (self.weight, 0.01, 0, -128, 127, torch.int8)
            return torch.relu(x @ qd.dequantize_per_tensor.default(*args))

    program = compiled(Product(), X, require_full_compilation=True)
    wanted = torch.relu(X.double() @ (0.01 * weight.double())).float()
    torch.testing.assert_close(program.module()(X), wanted, rtol=1e-5, atol=1e-5)


@needs_tensorrt_rtx
def test_tensorrt_rtx_builds_it(tmp_path: Path) -> None:
    program = compiled(
        QuantizedBlock().eval(), X, engines="tensorrt_rtx", require_full_compilation=True
    )
    portrt.save(program, tmp_path / "a.pt2")
    (engine,) = portrt.inspect(tmp_path / "a.pt2").blocks[0].engines
    assert engine["build"]["precision"] == "fp32+int8"


@needs_tensorrt_rtx
def test_what_tensorrt_rtx_cannot_quantize_is_left_out_with_its_words(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """uint8 with a zero point: all of it is in the engine of ONNX Runtime."""

    def quantize(x: torch.Tensor) -> torch.Tensor:
        q = qd.quantize_per_tensor.default(x * 2, 0.05, 3, -128, 127, torch.int8)
        return qd.dequantize_per_tensor.default(q, 0.05, 3, -128, 127, torch.int8) * 1.5

    program = compiled(lambda_module(quantize)(), X, engines=("tensorrt_rtx", "onnxruntime"))
    torch.testing.assert_close(program.module()(X), quantize(X), rtol=0, atol=0.08)
    assert "tensorrt_rtx takes block_0 in 2 parts, with 2 of 4 operators in PyTorch" in caplog.text
    assert "zero" in caplog.text.lower()


def test_a_model_that_torchao_quantized() -> None:
    """The whole flow: observers, calibration, conversion; a small convolutional network."""
    pt2e = pytest.importorskip("torchao.quantization.pt2e", reason="torchao is not installed")
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import (
        QuantizationAnnotation,
        QuantizationSpec,
        Quantizer,
    )

    aten = torch.ops.aten

    class Symmetric(Quantizer):
        def annotate(self, model: Any) -> Any:
            taken = QuantizationSpec(
                torch.int8, pt2e.MinMaxObserver, -127, 127, torch.per_tensor_symmetric
            )
            weight = QuantizationSpec(
                torch.int8, pt2e.PerChannelMinMaxObserver, -127, 127, torch.per_channel_symmetric, 0
            )
            for node in model.graph.nodes:
                if node.target in (aten.linear.default, aten.conv2d.default):
                    node.meta["quantization_annotation"] = QuantizationAnnotation(
                        {node.args[0]: taken, node.args[1]: weight}, _annotated=True
                    )
            return model

        def validate(self, model: Any) -> None:
            pass

    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)),
    ).eval()
    x = torch.randn(2, 3, 16, 16)
    prepared = prepare_pt2e(torch.export.export(model, (x,)).module(), Symmetric())
    prepared(x)
    quantized = convert_pt2e(prepared)
    exported = torch.export.export(quantized, (x,))
    program = portrt.compile(
        exported, engines="onnxruntime", min_block_size=1, output_format="exported_program"
    )
    difference = (program.module()(x) - quantized(x)).abs().max()
    assert difference < 1e-2 * quantized(x).abs().max()
    assert (quantized(x) - model(x)).abs().max() > 1e-4  # it was really quantized
    assert tiny.call_of(program).engine("onnxruntime")["build"]["precision"] == "fp32+int8"


@needs_tensorrt_rtx
def test_what_a_quantizer_would_round_and_pytorch_cuts_off_stays_in_pytorch() -> None:
    def cut(x: torch.Tensor) -> torch.Tensor:
        return (x * 3).clamp(-100, 100).to(torch.int8).float() * 0.5

    program = compiled(lambda_module(cut)(), X, engines="tensorrt_rtx")
    with pytest.warns(FallbackWarning):
        assert torch.equal(program.module()(X), cut(X))
    left = [node for node in program.graph.nodes if "_to_copy" in str(node.target)]
    assert left[0].meta["val"].dtype == torch.int8


def test_float8_out_of_range_stays_in_pytorch() -> None:
    """Versions of torch differ in what becomes of it, and ONNX goes with none of them."""

    def narrowed(x: torch.Tensor) -> torch.Tensor:
        return (x * 1000).to(torch.float8_e4m3fn).float() * 0.5

    program = compiled(lambda_module(narrowed)(), X)
    torch.testing.assert_close(program.module()(X), narrowed(X), rtol=0, atol=0, equal_nan=True)
    kinds = [node.meta["val"].dtype for node in program.graph.nodes if "_to_copy" in str(node)]
    assert torch.float8_e4m3fn in kinds


def test_packed_int4_weights_stay_in_pytorch_with_the_reason() -> None:
    aten = torch.ops.aten
    numbers = torch.randint(0, 15, (64, 32), dtype=torch.int32)

    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            packed = aten._convert_weight_to_int4pack_for_cpu(numbers, 1)
            self.register_buffer("packed", packed)
            self.register_buffer("scales", torch.rand(1, 64, 2).to(torch.bfloat16))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = aten._weight_int4pack_mm_for_cpu(x + 1, self.packed, 32, self.scales)
            return torch.relu(y)

    x, model, report = X[0].to(torch.bfloat16), Packed().eval(), []
    program = compiled(model, x, report=report.append)
    assert torch.equal(program.module()(x), model(x))
    (left,) = report[0].fallbacks
    assert "_weight_int4pack_mm_for_cpu" in left.operator
    assert left.reason
    assert left.remedy
