"""Programs with CUDA tensors: compiled from them, run on them, moved between CPU and GPU."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

import portrt
from portrt.errors import InputError, NoUsableEngineError


class Network(torch.nn.Module):
    """A convolution, a norm, attention over a device-made position, and a mutated buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.norm = torch.nn.LayerNorm(8)
        self.head = torch.nn.Linear(8, 5)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        h = torch.relu(self.conv(x)).flatten(2).transpose(1, 2)
        place = torch.arange(h.shape[1], device=x.device, dtype=h.dtype)[None, :, None] / 100
        h = self.norm(h + place)
        h = torch.nn.functional.scaled_dot_product_attention(h, h, h)
        return self.head(h.mean(1))


def network(dtype: torch.dtype, device: str) -> Network:
    torch.manual_seed(0)
    return Network().eval().to(device, dtype)


TOLERANCE = {torch.float32: 2e-3, torch.float16: 2e-2}


@pytest.fixture(scope="module", params=[torch.float32, torch.float16], ids=str)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    found: torch.dtype = request.param
    return found


@pytest.fixture(scope="module")
def saved(dtype: torch.dtype, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CUDA model and CUDA inputs, and an engine that runs on the CPU alone."""
    batch = torch.export.Dim("batch", min=1, max=16)
    program = portrt.compile(
        network(dtype, "cuda"),
        ir="dynamo",
        inputs=[torch.randn(2, 3, 12, 12, device="cuda", dtype=dtype)],
        dynamic_shapes=({0: batch},),
        engines="onnxruntime",
        enabled_precisions={torch.half},
        min_block_size=1,
        use_python_runtime=True,
        output_format="exported_program",
    )
    path = tmp_path_factory.mktemp("cuda") / "trt_model.pt2"
    torch.export.save(program, path)
    return path


def test_runs_on_the_gpu_in_a_new_process(saved: Path, dtype: torch.dtype, tmp_path: Path) -> None:
    x = torch.randn(5, 3, 12, 12, device="cuda", dtype=dtype)
    torch.save(x, tmp_path / "x.pt")
    code = (
        "import sys, torch\n"
        "x = torch.load(sys.argv[2])\n"
        "y = torch.export.load(sys.argv[1]).module()(x)\n"
        "assert y.device.type == 'cuda', y.device\n"
        "torch.save(y, sys.argv[3])\n"
    )
    paths = [saved, tmp_path / "x.pt", tmp_path / "y.pt"]
    done = subprocess.run(
        [sys.executable, "-c", code, *paths], check=True, capture_output=True, text=True
    )
    assert "onnxruntime: no" in done.stderr
    y = torch.load(tmp_path / "y.pt")
    expected = network(dtype, "cuda")(x)
    torch.testing.assert_close(y, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


def test_a_program_of_cpu_tensors_follows_its_inputs_to_the_gpu(dtype: torch.dtype) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.GELU(), torch.nn.Linear(8, 8))
    model = model.eval().to(dtype)
    x = torch.randn(4, 8, dtype=dtype)
    program = portrt.compile(
        model, inputs=[x], engines="onnxruntime", output_format="exported_program"
    )
    module = program.module()
    on_cpu = module(x)
    with pytest.warns(UserWarning, match="block_0 runs in PyTorch"):
        on_gpu = module(x.cuda())
    assert on_gpu.device.type == "cuda"
    tolerance = TOLERANCE[dtype]
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, rtol=tolerance, atol=tolerance)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once
        torch.testing.assert_close(module(x.cuda()), on_gpu)
        torch.testing.assert_close(module(x), on_cpu)


def test_buffer_counts_on_the_gpu(saved: Path) -> None:
    module = portrt.load(saved).module()
    x = torch.randn(1, 3, 12, 12, device="cuda", dtype=next(iter(_dtypes(module))))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(3):
            module(x)
    assert module.get_buffer("calls").item() == 3
    assert module.get_buffer("calls").device.type == "cuda"


def _dtypes(module: torch.nn.Module) -> set[torch.dtype]:
    return {b.dtype for b in module.buffers() if b.dtype.is_floating_point}


def test_inputs_on_two_devices_are_refused_by_name() -> None:
    class Add(torch.nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return torch.relu(x) + torch.relu(y)

    x = torch.randn(3)
    module = portrt.compile(Add().eval(), inputs=[x, x], engines="onnxruntime", min_block_size=1)
    with pytest.raises(InputError, match="'x' on cpu, 'y' on cuda:0"):
        module(x, x.cuda())


def test_an_engine_can_be_demanded(saved: Path, dtype: torch.dtype) -> None:
    module = portrt.load(saved, fallback="error").module()
    x = torch.randn(1, 3, 12, 12, device="cuda", dtype=dtype)
    with pytest.raises(NoUsableEngineError, match="cuda"):
        module(x)


def test_module_moved_to_the_gpu_with_its_blobs(dtype: torch.dtype) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Tanh()).eval().to(dtype)
    x = torch.randn(4, 8, dtype=dtype)
    module = portrt.compile(model, inputs=[x], engines="onnxruntime", min_block_size=1).to("cuda")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = module(x.cuda())
    tolerance = TOLERANCE[dtype]
    torch.testing.assert_close(found.cpu(), model(x), rtol=tolerance, atol=tolerance)


def test_verdicts_for_cuda_tensors(saved: Path) -> None:
    for block in portrt.runtime.report(portrt.load(saved), "cuda"):
        assert block.runs_as == "eager"
        for name, verdict in block.verdicts:
            assert not verdict, name
            assert verdict.reason
