"""Models that torchao's `quantize_` quantized: one engine, with the quantized model's numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import quantized_models
import tiny
import torch
from quantized_models import BuilderInput, difference
from torch.export import Dim, ExportedProgram

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


def quantized(form: str) -> torch.nn.Module:
    from torchao.quantization import quant_api, quantize_

    model = quantized_models.layer()
    with pytest.MonkeyPatch.context() as patch:
        if form == "float8":  # torchao asks for a GPU, though PyTorch multiplies it on a CPU too
            patch.setattr(quant_api, "is_sm_at_least_89", lambda: True)
            patch.setattr(quant_api, "_check_hardware_support", lambda granularity: None)
        quantize_(model, quantized_models.torchao_configs()[form]())
    return model


def compiled(model: torch.nn.Module, engine: str, **options: Any) -> ExportedProgram:
    program = portrt.compile(
        model,
        inputs=[X],
        engines=engine,
        output_format="exported_program",
        require_full_compilation=True,
        **options,
    )
    assert isinstance(program, ExportedProgram)
    return program


@pytest.fixture(scope="module")
def programs() -> dict[str, ExportedProgram]:
    """Of each form the program for a batch of 1 to 16."""
    shapes = ({0: Dim("batch", min=1, max=16)},)
    return {form: compiled(quantized(form), "onnxruntime", dynamic_shapes=shapes) for form in FORMS}


@pytest.mark.parametrize("form", FORMS)
def test_it_is_one_engine_with_the_numbers_of_the_quantized_model(
    form: str, programs: dict[str, ExportedProgram]
) -> None:
    program, model = programs[form], quantized(form)
    assert len(list(engine_calls(program))) == 1
    for size in (2, 1, 7):
        x = quantized_models.inputs(size)
        wanted, unquantized = model(x), quantized_models.layer()(x)
        limit = LOOSE.get(form, 1e-5)
        assert difference(program.module()(x), wanted) < limit
        assert difference(wanted, unquantized) > 5e-4


@pytest.mark.parametrize("engines", ["onnxruntime", ""], ids=["engine", "source"])
def test_the_files_need_no_torchao(
    engines: str, programs: dict[str, ExportedProgram], tmp_path: Path
) -> None:
    cases = []
    for index, (form, program) in enumerate(programs.items()):
        path = tmp_path / f"{index}.pt2"
        portrt.save(program, path)
        cases.append((form, str(path), quantized(form)(X), LOOSE.get(form, 1e-5)))
    torch.save((X, cases), tmp_path / "cases.pt")
    done = tiny.python(
        """
        import sys, torch
        x, cases = torch.load(sys.argv[1])
        for form, path, wanted, limit in cases:
            found = torch.export.load(path).module()(x)
            assert (found - wanted).abs().max() < limit * wanted.abs().max(), form
        assert len(cases) == int(sys.argv[2])
        assert "torchao" not in sys.modules
        """,
        str(tmp_path / "cases.pt"),
        str(len(FORMS)),
        PORTRT_ENGINES=engines,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("form", FORMS)
def test_weights_stay_narrow_in_the_file(form: str, programs: dict[str, ExportedProgram]) -> None:
    call = tiny.call_of(programs[form])
    image = call.blobs[call.entry["weights"]["blob"]]
    assert image.numel() < 0.6 * sum(4 * p.numel() for p in quantized_models.layer().parameters())


@needs_tensorrt_rtx
@pytest.mark.parametrize("form", FORMS)
def test_tensorrt_rtx_builds_it_from_a_model_with_the_same_numbers(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine cannot run here; ONNX Runtime runs what it was built from."""
    given = BuilderInput(monkeypatch)
    model = quantized(form)
    program = compiled(model, "tensorrt_rtx", cache_dir="off")
    assert len(list(engine_calls(program))) == 1
    assert difference(given.run(X, tmp_path), model(X)) < LOOSE.get(form, 1e-5)
    kinds = {node.op_type for node in given.nodes()}
    assert "DequantizeLinear" in kinds
    assert "MatMulInteger" not in kinds
