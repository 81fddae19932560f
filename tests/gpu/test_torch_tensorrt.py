"""Scripts for Torch-TensorRT with CUDA tensors: examples are made on the model's device."""

from __future__ import annotations

import io
import warnings

import pytest
import torch
from torch.testing import assert_close

import portrt.torch_tensorrt as torch_tensorrt

RANGE = {"min_shape": (1, 8), "opt_shape": (4, 8), "max_shape": (16, 8)}


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    layers = torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.Linear(16, 4)
    return torch.nn.Sequential(*layers).eval().cuda()


def test_examples_are_on_the_devices_of_the_model_and_of_the_option(
    model: torch.nn.Module,
) -> None:
    x = torch_tensorrt.Input(**RANGE)
    for device in (None, "cuda:0", torch.device("cuda"), torch_tensorrt.Device(gpu_id=0)):
        program = torch_tensorrt.dynamo.trace(model, x, device=device)
        assert program.example_inputs is not None
        assert program.example_inputs[0][0].is_cuda
    relu = torch_tensorrt.dynamo.trace(torch.nn.ReLU().eval(), x, device="cuda:0")
    assert relu.example_inputs is not None
    assert relu.example_inputs[0][0].is_cuda
    with pytest.warns(torch_tensorrt.NoEffectWarning, match="the model is on cuda"):
        torch_tensorrt.dynamo.trace(model, x, device="cpu")


def test_a_compiled_module_runs_in_its_contexts(model: torch.nn.Module) -> None:
    compiled = torch_tensorrt.compile(model, inputs=torch_tensorrt.Input(**RANGE), min_block_size=1)
    file = io.BytesIO()
    torch_tensorrt.save(compiled, file, arg_inputs=[torch.ones(4, 8, device="cuda")])
    file.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a file's engines run as trusted alone
        loaded = torch_tensorrt.load(file, trust="host-code").module()
        for size in (1, 7, 16):
            x = torch.randn(size, 8, device="cuda")
            with torch.no_grad():
                wanted = model(x)
            assert_close(compiled(x), wanted, rtol=5e-3, atol=5e-3)
            assert_close(loaded(x), wanted, rtol=5e-3, atol=5e-3)
            with torch_tensorrt.runtime.enable_cudagraphs(compiled) as graphed:
                for _ in range(3):
                    assert_close(graphed(x), wanted, rtol=5e-3, atol=5e-3)
