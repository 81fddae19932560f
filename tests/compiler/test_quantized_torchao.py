"""Models that torchao's `quantize_` quantized: one engine, with the quantized model's numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import quantized_models
import tiny
import torch
from quantized_models import BuilderInput, difference
from torch.export import Dim

import portrt
from portrt.compiler.backends import registry
from portrt.runtime.calls import engine_calls

pytest.importorskip("torchao.quantization", reason="torchao is not installed")

RTX = registry.builder("tensorrt_rtx").can_build()
needs_tensorrt_rtx = pytest.mark.skipif(not RTX, reason=str(RTX))

FORMS = list(quantized_models.torchao_configs())
# Products in another order, and numbers that lie on the border of two steps of a quantizer.
LOOSE = {"int8": 5e-3, "int8 with int4 weights": 1e-2, "float8": 1e-2}
X = quantized_models.inputs()


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def quantized(form: str, monkeypatch: pytest.MonkeyPatch) -> torch.nn.Module:
    from torchao.quantization import quant_api, quantize_

    if form == "float8":  # torchao asks for a GPU, though PyTorch multiplies float8 on a CPU too
        monkeypatch.setattr(quant_api, "is_sm_at_least_89", lambda: True)
        monkeypatch.setattr(quant_api, "_check_hardware_support", lambda granularity: None)
    model = quantized_models.layer()
    quantize_(model, quantized_models.torchao_configs()[form]())
    return model


def compiled(model: torch.nn.Module, engine: str, **options: Any) -> Any:
    return portrt.compile(
        model,
        inputs=[X],
        engines=engine,
        output_format="exported_program",
        require_full_compilation=True,
        **options,
    )


def test_it_is_one_engine_with_the_numbers_of_the_quantized_model(
    quantized: torch.nn.Module, form: str
) -> None:
    batch = Dim("batch", min=1, max=16)
    program = compiled(quantized, "onnxruntime", dynamic_shapes=({0: batch},))
    assert len(list(engine_calls(program))) == 1
    for size in (2, 1, 7):
        x = quantized_models.inputs(size)
        wanted, unquantized = quantized(x), quantized_models.layer()(x)
        limit = LOOSE.get(form, 1e-5)
        assert difference(program.module()(x), wanted) < limit
        assert difference(wanted, unquantized) > 5e-4


def test_the_file_needs_no_torchao(quantized: torch.nn.Module, form: str, tmp_path: Path) -> None:
    path = tmp_path / "a.pt2"
    portrt.save(compiled(quantized, "onnxruntime"), path)
    torch.save((X, quantized(X)), tmp_path / "io.pt")
    for engines in ("onnxruntime", ""):  # the engine, and the source in PyTorch
        done = tiny.python(
            """
            import sys, torch
            x, wanted = torch.load(sys.argv[2])
            found = torch.export.load(sys.argv[1]).module()(x)
            assert (found - wanted).abs().max() < float(sys.argv[3]) * wanted.abs().max()
            assert "torchao" not in sys.modules
            """,
            str(path),
            str(tmp_path / "io.pt"),
            str(LOOSE.get(form, 1e-5)),
            PORTRT_ENGINES=engines,
        )
        assert done.returncode == 0, done.stderr


def test_weights_stay_narrow_in_the_file(quantized: torch.nn.Module, form: str) -> None:
    call = tiny.call_of(compiled(quantized, "onnxruntime"))
    image = call.blobs[call.entry["weights"]["blob"]]
    assert image.numel() < 0.6 * sum(4 * p.numel() for p in quantized_models.layer().parameters())


@needs_tensorrt_rtx
def test_tensorrt_rtx_builds_it_from_a_model_with_the_same_numbers(
    quantized: torch.nn.Module, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine cannot run here; ONNX Runtime runs what it was built from."""
    given = BuilderInput(monkeypatch)
    program = compiled(quantized, "tensorrt_rtx", cache_dir="off")
    assert len(list(engine_calls(program))) == 1
    assert difference(given.run(X, tmp_path), quantized(X)) < LOOSE.get(form, 1e-5)
    kinds = {node.op_type for node in given.nodes()}
    assert "DequantizeLinear" in kinds
    assert "MatMulInteger" not in kinds
