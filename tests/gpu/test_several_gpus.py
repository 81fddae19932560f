"""A program on a machine with several GPUs: it runs where its inputs are."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from plans import FOLDER, INPUTS, fresh
from programs import ABLE, PLANS, TOLERANCE, adopted, eager, in_threads, relative

import portrt
from portrt.engines.cuda.driver import current_context
from portrt.engines.tensorrt.cuda_kernel import cuda_kernel
from portrt.engines.tensorrt.engine import OpenedEngine
from portrt.engines.tensorrt.runtime import TensorRTRuntime
from portrt.errors import InputError

GPUS = torch.cuda.device_count()

pytestmark = [
    pytest.mark.skipif(GPUS < 2, reason=f"there are {GPUS} GPUs, these tests want two"),
    pytest.mark.skipif(PLANS is None, reason=f"{FOLDER} names no folder with plans"),
    pytest.mark.skipif(not ABLE, reason=f"tensorrt cannot run here: {ABLE.reason}"),
]

DEVICES = ["cuda:1", "cuda:0"]


def to(device: str, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    return [item.to(device) for item in inputs]


@pytest.mark.parametrize("graphs", [0, 4], ids=["plain", "cuda_graphs"])
@pytest.mark.parametrize("name", INPUTS)
def test_it_runs_where_the_inputs_are(name: str, graphs: int) -> None:
    """In turn on both, while the first is current; each repeated, so that graphs are recorded."""
    program = adopted(name, "fp32", fallback="error")
    assert torch.cuda.current_device() == 0
    with portrt.runtime.cuda_graphs(most=graphs):
        for seed in range(8):
            inputs = fresh(name, 3, seed)
            for device in DEVICES:
                found = program(*to(device, inputs))
                assert found.device == torch.device(device)
                assert relative(found, eager(name, inputs)) <= TOLERANCE["fp32"]
    assert torch.cuda.current_device() == 0


def test_each_gpu_has_its_engine_and_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def noted(kind: type, name: str) -> None:
        real = getattr(kind, name)

        def note(*args: Any, **kwargs: Any) -> Any:
            made.append(name)
            return real(*args, **kwargs)

        monkeypatch.setattr(kind, name, note)

    noted(TensorRTRuntime, "open")
    noted(OpenedEngine, "new_context")
    program = adopted("resnet", "fp32", fallback="error")
    given = {device: to(device, fresh("resnet", 4, 0)) for device in DEVICES}
    for device in DEVICES:
        program(*given[device])  # opened
    assert {"open", "new_context"} <= set(made)
    for device in DEVICES:
        other = DEVICES[1 - DEVICES.index(device)]
        torch.cuda.synchronize(0)
        torch.cuda.synchronize(1)
        before = {name: torch.cuda.memory_allocated(name) for name in DEVICES}
        made.clear()
        torch.cuda.reset_peak_memory_stats(other)
        out = program(*given[device])
        torch.cuda.synchronize(device)
        assert torch.cuda.memory_allocated(device) - before[device] <= out.numel() * 4 + 1024
        assert torch.cuda.max_memory_allocated(other) == before[other]
        assert made == []  # the engine was not opened again
        del out


def test_threads_on_both_at_once() -> None:
    program = adopted("encoder", "fp16", fallback="error")
    errors: list[float] = []

    def work(index: int) -> None:
        device = DEVICES[index % 2]
        for seed in range(20):
            inputs = fresh("encoder", 1 + index, seed, 9 + index)
            found = program(*to(device, inputs))
            assert found.device == torch.device(device)
            errors.append(relative(found, eager("encoder", inputs)))

    in_threads(4, work)
    assert len(errors) == 80
    assert max(errors) <= TOLERANCE["fp16"]


def test_the_current_gpu_is_not_where_it_runs() -> None:
    program = adopted("mlp", "fp32", fallback="error")
    inputs = fresh("mlp", 5, 0)
    with torch.cuda.device(1):
        found = program(*to("cuda:0", inputs))
        assert torch.cuda.current_device() == 1
    assert found.device == torch.device("cuda:0")
    assert relative(found, eager("mlp", inputs)) <= TOLERANCE["fp32"]


def test_inputs_on_two_gpus_are_refused_by_name() -> None:
    program = adopted("encoder", "fp32", fallback="error")
    ids, mask = fresh("encoder", 2, 0)
    with pytest.raises(InputError, match=r"cuda:0.*cuda:1"):
        program(ids.to("cuda:0"), mask.to("cuda:1"))


SECOND_ALONE = """
import sys, torch, portrt
sys.path.insert(0, sys.argv[2])
from plans import fresh
module = portrt.load(sys.argv[1], trust="host-code", output_format="module", fallback="error")
module.to("cuda:1")
found = module(*[item.to("cuda:1") for item in fresh("mlp", 3, 11)])
assert found.device.index == 1
assert torch.cuda.memory_allocated(0) == 0
torch.save(found.cpu(), sys.argv[1] + ".out")
"""


def test_a_loaded_module_on_the_second_gpu(tmp_path: Path) -> None:
    path = tmp_path / "mlp.pt2"
    torch.export.save(adopted("mlp", "fp32", source=True, output_format="exported_program"), path)
    here = str(Path(__file__).parent)
    subprocess.run([sys.executable, "-c", SECOND_ALONE, path, here], check=True)
    found = torch.load(f"{path}.out")
    assert relative(found, eager("mlp", fresh("mlp", 3, 11))) <= TOLERANCE["fp32"]


def test_layers_have_times_on_the_second_gpu(tmp_path: Path) -> None:
    path = tmp_path / "mlp.pt2"
    torch.export.save(adopted("mlp", "fp32", source=True, output_format="exported_program"), path)
    found = portrt.files.profile(path, device="cuda:1", engine="tensorrt")
    (block,) = found.blocks
    assert sum(layer.seconds for layer in block.layers) > 1e-6


def test_a_kernel_is_launched_on_its_gpu_whichever_is_current() -> None:
    source = 'extern "C" __global__ void note(int* place, long long value) { *place = (int)value; }'
    assert torch.cuda.current_device() == 0
    for index in (1, 0):
        device = torch.device("cuda", index)
        launch = cuda_kernel(source, "note", device)
        assert launch is not None
        place = torch.zeros(1, dtype=torch.int32, device=device)
        torch.cuda.synchronize(device)
        launch((1, 1), 1, 0, [place.data_ptr(), 5])
        torch.cuda.synchronize(device)
        assert place.item() == 5
        torch.cuda.set_device(0)


@pytest.mark.parametrize("graphs", [0, 4], ids=["plain", "cuda_graphs"])
def test_the_end_of_a_program_leaves_the_current_gpu(graphs: int) -> None:
    """Garbage is collected at any time, between the steps of a call on another GPU too."""
    program = adopted("resnet", "fp32", fallback="error")
    with portrt.runtime.cuda_graphs(most=graphs):
        for _ in range(3):
            for device in DEVICES:
                program(*to(device, fresh("resnet", 4, 0)))
    torch.cuda.synchronize(0)
    torch.cuda.synchronize(1)
    with torch.cuda.device(1):
        before = current_context().value
        del program
        gc.collect()
        assert torch.cuda.current_device() == 1
        assert current_context().value == before
