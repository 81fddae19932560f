"""LSTM and GRU layers stay whole, for every length, and the engines' numbers are eager's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from harness import assert_same, run_script
from torch import nn
from torch.export import Dim

import portrt
from portrt import torch_internals
from portrt.compiler.capture import capture
from portrt.compiler.lower import lower
from portrt.graphs.recurrent import keep_recurrent_layers

aten = torch.ops.aten
WARNS = "ignore:The tensor attribute.*assigned during export"
pytestmark = pytest.mark.filterwarnings(WARNS)
KINDS = {nn.LSTM: aten.lstm.input, nn.GRU: aten.gru.input}


class Layers(nn.Module):
    def __init__(self, kind: Any, **options: Any) -> None:
        super().__init__()
        self.layers = kind(5, 6, **options)

    def forward(self, x: torch.Tensor) -> Any:
        return self.layers(x)


def dims() -> Any:
    return ({0: Dim("first", min=1, max=12), 1: Dim("second", min=1, max=12)},)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"batch_first": True},
        {"num_layers": 3, "bidirectional": True, "dropout": 0.5},
        {"bias": False, "bidirectional": True, "batch_first": True},
    ],
    ids=str,
)
def test_engines_take_every_length(kind: Any, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = Layers(kind, **options).eval()
    program = portrt.compile(
        model,
        inputs=[torch.randn(4, 3, 5)],
        dynamic_shapes=dims(),
        engines="onnxruntime",
        require_full_compilation=True,
        output_format="exported_program",
    )
    module = program.module()

    for first, second in ((4, 3), (1, 1), (12, 2), (7, 12)):
        x = torch.randn(first, second, 5)
        with torch.no_grad():
            assert_same(module(x), model(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_they_are_one_node_before_and_after_lowering(kind: Any) -> None:
    captured = capture(Layers(kind).eval(), [torch.randn(4, 3, 5)], dynamic_shapes=dims())
    for program in (captured, lower(captured)):
        targets = [node.target for node in program.graph.nodes]
        assert targets.count(KINDS[kind]) == 1


def test_a_projection_gives_eagers_numbers() -> None:
    model = Layers(nn.LSTM, proj_size=3).eval()
    x = torch.randn(4, 3, 5)
    program = portrt.compile(model, inputs=[x], dynamic_shapes=dims(), min_block_size=1)

    for first, second in ((4, 3), (9, 2)):
        x = torch.randn(first, second, 5)
        with torch.no_grad():
            assert_same(program(x), model(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "dtype", "options"),
    [
        (nn.LSTM, torch.float32, {"proj_size": 3, "num_layers": 2, "bidirectional": True}),
        (nn.LSTM, torch.float64, {"proj_size": 3, "bias": False, "batch_first": True}),
        (nn.LSTM, torch.float16, {"proj_size": 3, "num_layers": 2, "bidirectional": True}),
        (nn.LSTM, torch.bfloat16, {"proj_size": 3}),
        (nn.LSTM, torch.float64, {"num_layers": 2, "bidirectional": True, "batch_first": True}),
        (nn.GRU, torch.float64, {"num_layers": 2, "bidirectional": True, "batch_first": True}),
        (nn.GRU, torch.float64, {"bias": False}),
    ],
    ids=str,
)
def test_layers_without_a_kernel_are_in_the_engine(
    kind: Any, dtype: torch.dtype, options: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    model = Layers(kind, **options).to(dtype).eval()
    program = portrt.compile(
        model,
        inputs=[torch.randn(4, 3, 5, dtype=dtype)],
        dynamic_shapes=dims(),
        engines="onnxruntime",
        require_full_compilation=True,
        output_format="exported_program",
    )
    module, tolerance = program.module(), {8: 1e-12, 4: 1e-5, 2: 2e-2}[dtype.itemsize]

    for first, second in ((4, 3), (1, 1), (12, 2)):
        x = torch.randn(first, second, 5, dtype=dtype)
        with torch.no_grad():
            assert_same(module(x), model(x), rtol=tolerance, atol=tolerance)


def test_torch_exports_as_before_afterwards() -> None:
    kernels = dict(aten.lstm.input.py_kernels)
    with keep_recurrent_layers():
        assert aten.lstm.input.py_kernels != kernels
    assert aten.lstm.input.py_kernels == kernels
    with torch.no_grad():
        program = torch.export.export(Layers(nn.LSTM).eval(), (torch.randn(4, 3, 5),))
    decomposed = program.run_decompositions()
    assert aten.lstm.input not in [node.target for node in decomposed.graph.nodes]


def test_the_source_runs_where_torch_alone_is(tmp_path: Any) -> None:
    torch.manual_seed(0)
    model, x = Layers(nn.GRU).eval(), torch.randn(7, 2, 5)
    program = portrt.compile(
        model,
        inputs=[torch.randn(4, 3, 5)],
        dynamic_shapes=dims(),
        engines="tensorrt_rtx",
        output_format="exported_program",
    )
    torch.export.save(program, tmp_path / "model.pt2")
    torch.save(x, tmp_path / "x.pt")
    script = (
        "import sys, torch; folder = sys.argv[1];"
        "model = torch.export.load(folder + '/model.pt2').module();"
        "torch.save(model(torch.load(folder + '/x.pt')), folder + '/y.pt')"
    )
    run_script(script, str(tmp_path))
    with torch.no_grad():
        assert_same(torch.load(tmp_path / "y.pt"), model(x), rtol=1e-5, atol=1e-6)


def test_decomposed_as_puts_everything_back_after_an_error() -> None:
    kernels = dict(aten.gru.input.py_kernels)
    with pytest.raises(RuntimeError), torch_internals.decomposed_as(aten.gru.input, print):
        raise RuntimeError
    assert aten.gru.input.py_kernels == kernels
