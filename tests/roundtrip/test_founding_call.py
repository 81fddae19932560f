"""The call that a user of Torch-TensorRT has, with only the import changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import TESTS, assert_same, run_jobs
from models import CASES, randn

import portrt
from portrt.runtime.calls import manifests_of
from portrt.runtime.report import report

# float16 is asked for: a float32 model is computed in it, too.
DTYPES = {torch.float32: (1e-2, 2e-3), torch.float16: (1e-2, 2e-3)}


def compiled_as_before(dtype: torch.dtype, **options: Any) -> tuple[Any, Any, list[torch.Tensor]]:
    model = CASES["mlp"].model().to(dtype)
    inputs = [randn(3, 4, dtype=dtype)]
    compiled = portrt.compile(
        model,
        ir="dynamo",
        inputs=inputs,
        enabled_precisions={torch.half},
        min_block_size=1,
        output_format="exported_program",
        **options,
    )
    return model, compiled, inputs


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_python_runtime_saves_and_runs_in_a_new_process(
    dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model, compiled, inputs = compiled_as_before(dtype, use_python_runtime=True)
    torch.export.save(compiled, "trt_model.ep")
    torch.save([(tuple(inputs), {})], "inputs.pt")
    job = {"file": "trt_model.ep", "inputs": "inputs.pt", "outputs": "out.pt", "how": "run"}
    errors = run_jobs(TESTS / "roundtrip" / "run.py", [{**job, "needs": []}], tmp_path)

    assert errors == [""]
    ((result, _, _),) = torch.load("out.pt")
    rtol, atol = DTYPES[dtype]
    assert_same(result, model(*inputs), rtol, atol)


@pytest.mark.parametrize("use_python_runtime", [True, False])
def test_both_runtimes_answer_like_eager(
    use_python_runtime: bool, request: pytest.FixtureRequest
) -> None:
    if not use_python_runtime:
        request.getfixturevalue("cpp_runtime")
    model, compiled, inputs = compiled_as_before(
        torch.float32, use_python_runtime=use_python_runtime, engines=("onnxruntime",)
    )

    assert_same(compiled.module()(*inputs), model(*inputs), *DTYPES[torch.float32])


def test_the_program_is_the_same_for_both_runtimes() -> None:
    def manifests(use_python_runtime: bool) -> Any:
        _, compiled, _ = compiled_as_before(
            torch.float32, use_python_runtime=use_python_runtime, engines=("onnxruntime",)
        )
        found = [json.loads(text) for text in manifests_of(compiled)]
        for manifest in found:
            for engine in manifest["engines"]:
                engine["build"].pop("seconds")
        return found

    assert manifests(True) == manifests(False)


def test_a_tensorrt_rtx_engine_lies_beside_the_one_that_runs_here() -> None:
    case = CASES["transformer_layer"]
    program = case.compile(engines=("tensorrt_rtx", "onnxruntime"))
    (block,) = report(program)
    verdicts = dict(block.verdicts)

    assert list(verdicts) == ["tensorrt_rtx", "onnxruntime"]
    assert not verdicts["tensorrt_rtx"]
    assert block.runs_as == "onnxruntime"
    for (x,), _ in case.arguments():
        with torch.no_grad():
            assert_same(program.module()(x), case.model()(x), 1e-5, 1e-5)


def test_without_an_engine_for_this_machine_the_source_runs_in_pytorch() -> None:
    case = CASES["conv_dynamic_size"]
    program = case.compile(engines=("tensorrt_rtx",))
    module = program.module()
    for index, ((x,), _) in enumerate(case.arguments()):
        if index:
            result = module(x)
        else:
            with pytest.warns(UserWarning, match="runs in PyTorch"):
                result = module(x)
        assert_same(result, case.model()(x), 1e-5, 1e-5)
