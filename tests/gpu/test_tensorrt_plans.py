"""TensorRT plans that were built elsewhere, run on this GPU and compared with eager PyTorch.

Needs the plans (see plans.py) and a TensorRT runtime: `tensorrt_dispatch` 10 with the lean runtime
library of TensorRT 8.6, or `tensorrt_lean` 8.6.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from plans import FOLDER, INPUTS, fresh, sample
from programs import ABLE, PLANS, TOLERANCE, adopted, eager, in_threads, on_gpu, plan, relative

import portrt
from portrt.errors import EngineError, InputError, NoUsableEngineError

pytestmark = [
    pytest.mark.skipif(PLANS is None, reason=f"{FOLDER} names no folder with plans"),
    pytest.mark.skipif(not ABLE, reason=f"tensorrt cannot run here: {ABLE.reason}"),
]

SIZES = {"mlp": [(1,), (5,), (256,)], "resnet": [(1,), (5,), (32,)], "encoder": [(1, 1), (5, 77)]}
CASES = [(name, precision) for name in INPUTS for precision in TOLERANCE]


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def case(request: pytest.FixtureRequest) -> Iterator[tuple[str, str, Any]]:
    name, precision = request.param
    yield name, precision, adopted(name, precision, fallback="error")


def test_the_stored_answer(case: tuple[str, str, Any]) -> None:
    name, precision, program = case
    assert PLANS is not None
    inputs, wanted = sample(name, PLANS)
    found = program(*on_gpu(inputs))
    assert found.is_cuda
    assert relative(found, wanted) <= TOLERANCE[precision]


def test_other_sizes_and_other_numbers(case: tuple[str, str, Any]) -> None:
    name, precision, program = case
    for seed, (batch, *length) in enumerate(SIZES[name] * 2):
        inputs = fresh(name, batch, seed, *length)
        assert relative(program(*on_gpu(inputs)), eager(name, inputs)) <= TOLERANCE[precision]


@pytest.mark.parametrize("default", [True, False], ids=["default_stream", "other_stream"])
def test_it_runs_in_the_order_of_the_callers_stream(
    case: tuple[str, str, Any], default: bool
) -> None:
    """The input is made by slow work on the stream, and the output is used on it at once."""
    name, precision, program = case
    if name == "encoder":
        pytest.skip("its inputs are whole numbers, which the slow work does not make")
    inputs = fresh(name, 8, 3)
    wanted = eager(name, inputs)
    stream = torch.cuda.default_stream() if default else torch.cuda.Stream()
    zeros = torch.zeros(4096, 4096, device="cuda")
    given = on_gpu(inputs)
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        for _ in range(5):
            late = zeros
            for _ in range(20):
                late = late @ zeros  # some milliseconds
            x = torch.full_like(given[0], torch.nan)
            x.copy_(given[0] + late[0, 0])
            result = program(x) * 1.0
            x.fill_(torch.nan)
    stream.synchronize()
    assert relative(result, wanted) <= TOLERANCE[precision]


def test_eight_threads_on_eight_streams(case: tuple[str, str, Any]) -> None:
    name, precision, program = case
    jobs = [
        fresh(name, 1 + index % 4, index, *([9 + index] if name == "encoder" else []))
        for index in range(8)
    ]
    wanted = [eager(name, inputs) for inputs in jobs]
    errors: list[float] = []

    def work(index: int) -> None:
        given = on_gpu(jobs[index])
        with torch.cuda.stream(torch.cuda.Stream()):
            torch.cuda.current_stream().wait_stream(torch.cuda.default_stream())
            for _ in range(50):
                found = program(*given)
                torch.cuda.current_stream().synchronize()
                errors.append(relative(found, wanted[index]))

    in_threads(8, work)
    assert len(errors) == 400
    assert max(errors) <= TOLERANCE[precision]


def test_memory_is_torchs_and_comes_back(case: tuple[str, str, Any]) -> None:
    name, _, program = case
    given = on_gpu(fresh(name, 8, 0))
    for _ in range(2):  # small engines begin to keep theirs
        program(*given)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    out = program(*given)
    assert torch.cuda.memory_allocated() - before <= out.numel() * 4 + 1024
    if name != "mlp":  # small engines keep theirs
        workspace = torch.cuda.max_memory_allocated() - before
        assert workspace > 2**20  # activations were torch's for the time of the call
    del out
    assert torch.cuda.memory_allocated() == before


@pytest.mark.parametrize("layout", ["transposed", "channels_last", "unaligned", "expanded"])
def test_any_layout(layout: str) -> None:
    name = "resnet" if layout == "channels_last" else "mlp"
    program = adopted(name, "fp32", fallback="error")
    inputs = fresh(name, 8, 5)
    x = inputs[0].cuda()
    if layout == "transposed":
        x = x.t().contiguous().t()
    elif layout == "channels_last":
        x = x.to(memory_format=torch.channels_last)
    elif layout == "expanded":
        x = x[:1].expand(8, 256)
        inputs = [inputs[0][:1].expand(8, 256)]
    else:
        room = torch.zeros(x.numel() + 1, device="cuda")
        room[1:] = x.flatten()
        x = room[1:].view(x.shape)
        assert x.data_ptr() % 256
    assert relative(program(x), eager(name, inputs)) <= TOLERANCE["fp32"]


def test_numbers_that_int32_does_not_hold_are_refused() -> None:
    program = adopted("encoder", "fp32", fallback="error")
    ids, mask = on_gpu(fresh("encoder", 2, 0))
    good = program(ids, mask)
    bad = mask.clone()
    bad[0, 0] = 2**40 + 1
    with pytest.raises(EngineError, match="int32"):
        for _ in range(100):  # noted by the GPU, told by a later call at the latest
            program(ids, bad)
            torch.cuda.synchronize()
    torch.testing.assert_close(program(ids, mask), good)


def test_sizes_out_of_range_are_refused() -> None:
    program = adopted("mlp", "fp32", fallback="error")
    with pytest.raises(InputError, match="257"):
        program(torch.ones(257, 256, device="cuda"))


def test_the_callers_cuda_graph(case: tuple[str, str, Any]) -> None:
    name, precision, program = case
    static = on_gpu(fresh(name, 4, 0))
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        side.wait_stream(torch.cuda.default_stream())
        for _ in range(2):
            program(*static)
    side.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = program(*static)
    for seed in range(3):
        inputs = fresh(name, 4, seed)
        for place, item in zip(static, inputs, strict=True):
            place.copy_(item)
        program(*on_gpu(fresh(name, 3, seed)))  # the same engine meanwhile, with other sizes
        graph.replay()
        assert relative(out, eager(name, inputs)) <= TOLERANCE[precision]


@pytest.mark.filterwarnings("ignore:The CUDA Graph is empty")  # of a graph that torch begins with
def test_reduce_overhead(case: tuple[str, str, Any]) -> None:
    name, precision, program = case
    with torch.no_grad():
        fast = torch.compile(program, mode="reduce-overhead", dynamic=False)
        for seed in range(5):
            inputs = fresh(name, 4, seed)
            found = fast(*on_gpu(inputs)).clone()
            assert relative(found, eager(name, inputs)) <= TOLERANCE[precision]


def test_cuda_graphs_of_changing_sizes(case: tuple[str, str, Any]) -> None:
    name, precision, program = case
    with portrt.runtime.cuda_graphs(most=2):
        kept = []
        for seed in range(24):
            inputs = fresh(name, 1 + seed % 4, seed)
            found = program(*on_gpu(inputs))  # new addresses in every call
            kept.append((found, inputs))
        for repeat in range(4):
            inputs = fresh(name, 2, repeat)
            kept.append((program(*on_gpu(inputs)), inputs))
    for found, inputs in kept:  # nothing wrote into an earlier output
        assert relative(found, eager(name, inputs)) <= TOLERANCE[precision]


@pytest.mark.parametrize("layout", ["transposed", "expanded", "unaligned"])
def test_cuda_graphs_of_any_layout(layout: str) -> None:
    program = adopted("mlp", "fp32", fallback="error")
    with portrt.runtime.cuda_graphs(most=2):
        for seed in range(6):
            (x,) = fresh("mlp", 8, seed)
            if layout == "transposed":
                given = x.cuda().t().contiguous().t()
            elif layout == "expanded":
                x = x[:1].expand(8, 256)
                given = x[:1].cuda().expand(8, 256)
            else:
                room = torch.zeros(x.numel() + 1, device="cuda")
                given = room[1:].view(x.shape).copy_(x)
            assert relative(program(given), eager("mlp", [x])) <= TOLERANCE["fp32"]


def test_cuda_graphs_of_eight_threads(case: tuple[str, str, Any]) -> None:
    """Each on a stream of its own, with new tensors in each call."""
    name, precision, program = case
    errors: list[float] = []

    def work(index: int) -> None:
        with torch.cuda.stream(torch.cuda.Stream()), portrt.runtime.cuda_graphs(most=16):
            for seed in range(20):
                inputs = fresh(name, 1 + seed % 2, seed * 8 + index)
                found = program(*on_gpu(inputs))
                errors.append(relative(found, eager(name, inputs)))

    in_threads(8, work)
    assert len(errors) == 160
    assert max(errors) <= TOLERANCE[precision]


def test_cuda_graphs_on_more_streams_than_torch_has(case: tuple[str, str, Any]) -> None:
    """Torch gives 32 streams out in turn. Most recordings are forgotten while others run."""
    name, precision, program = case
    errors: list[float] = []

    def work(index: int) -> None:
        for turn in range(8):
            with torch.cuda.stream(torch.cuda.Stream()), portrt.runtime.cuda_graphs(most=6):
                for seed in range(4):
                    inputs = fresh(name, 1 + turn % 3, seed * 8 + index)
                    found = program(*on_gpu(inputs))
                    errors.append(relative(found, eager(name, inputs)))

    in_threads(8, work)
    assert len(errors) == 256
    assert max(errors) <= TOLERANCE[precision]


@pytest.mark.parametrize("most", [0, 4], ids=["plain", "cuda_graphs"])
def test_a_thread_that_does_nothing_else_on_the_gpu(case: tuple[str, str, Any], most: int) -> None:
    """No call of CUDA has made a context current in it."""
    name, precision, program = case
    inputs = fresh(name, 2, 0)
    given = on_gpu(inputs)
    torch.cuda.synchronize()
    found: list[torch.Tensor] = []

    def work() -> None:
        with portrt.runtime.cuda_graphs(most=most):
            found.append(program(*given))

    for _ in range(4):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert len(found) == 4
    for result in found:
        assert relative(result, eager(name, inputs)) <= TOLERANCE[precision]


def test_cuda_graphs_of_two_threads_on_one_stream() -> None:
    program = adopted("mlp", "fp32", fallback="error")
    errors: list[float] = []

    def work(index: int) -> None:
        with portrt.runtime.cuda_graphs():
            for seed in range(50):
                inputs = fresh("mlp", 1 + (seed + index) % 3, seed * 2 + index)
                errors.append(relative(program(inputs[0].cuda()), eager("mlp", inputs)))

    in_threads(2, work)
    assert len(errors) == 100
    assert max(errors) <= TOLERANCE["fp32"]


SAVED = """
import sys, torch
sys.path.insert(0, sys.argv[3])
from plans import fresh
name, path = sys.argv[1:3]
if sys.argv[4] == "portrt":
    import portrt
    module = portrt.load(path, trust="host-code", output_format="module", fallback="error")
else:
    module = torch.export.load(path).module()
inputs = fresh(name, 3, 11)
torch.save(module(*[item.cuda() for item in inputs]).cpu(), path + ".out")
"""


@pytest.mark.parametrize("loader", ["portrt", "torch"])
def test_saved_and_loaded_in_a_new_process(
    loader: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With torch alone the leave for host code comes from the environment."""
    monkeypatch.setenv("PORTRT_TRUST", "host-code")
    monkeypatch.setenv("PORTRT_FALLBACK", "error")
    for name in INPUTS:
        path = tmp_path / f"{name}.pt2"
        program = adopted(name, "fp32", source=True, output_format="exported_program")
        torch.export.save(program, path)
        here = str(Path(__file__).parent)
        subprocess.run([sys.executable, "-c", SAVED, name, path, here, loader], check=True)
        found = torch.load(f"{path}.out")
        assert relative(found, eager(name, fresh(name, 3, 11))) <= TOLERANCE["fp32"]


def test_without_trust_the_source_runs_on_the_gpu(tmp_path: Path) -> None:
    program = adopted("mlp", "fp32", source=True, output_format="exported_program")
    torch.export.save(program, tmp_path / "mlp.pt2")
    module = portrt.load(tmp_path / "mlp.pt2", output_format="module")
    inputs = fresh("mlp", 3, 0)
    with portrt.runtime.policy(trust=()), pytest.warns(UserWarning, match="host code"):
        found = module(inputs[0].cuda())
    assert found.is_cuda
    assert relative(found, eager("mlp", inputs)) <= TOLERANCE["fp32"]


def test_another_gpu_another_release_and_damage_are_told_in_words(tmp_path: Path) -> None:
    data = bytearray(plan("mlp", "fp32").read_bytes())
    x = torch.ones(2, 256, device="cuda")

    def refusal(data: bytes, **options: Any) -> str:
        made = portrt.from_plan(
            bytes(data),
            {"x": x.cpu()},
            outputs={"y": torch.empty(2, 256)},
            trust="host-code",
            version_compatible=True,
            lean_runtime="outside",
            fallback="error",
            **options,
        )
        with pytest.raises(NoUsableEngineError) as caught:
            made(x)
        return str(caught.value)

    major, minor = torch.cuda.get_device_capability()
    newer = bytearray(data)
    newer[24:28] = bytes([11, 4, 0, 0])
    assert "11.4" in refusal(newer)
    tagged = b"\x07\x80\x01\x00"
    of_90 = tagged + bytes([9, 0, 0, 0]) + tagged + bytes([0, 0, 0, 0])
    assert data.count(of_90) == 1  # where its header says for which GPU it was built
    of_75 = tagged + bytes([7, 0, 0, 0]) + tagged + bytes([5, 0, 0, 0])
    words = refusal(data.replace(of_90, of_75))
    assert "7.5" in words
    assert f"{major}.{minor}" in words
    cut = data[: len(data) // 2]
    with pytest.raises(portrt.PortrtError):
        refusal(cut)


def test_too_little_memory_at_a_call_is_an_error_with_numbers() -> None:
    program = adopted("resnet", "fp32", fallback="error")
    x = fresh("resnet", 1, 0)[0].cuda()
    wanted = program(x)
    torch.cuda.empty_cache()
    total = torch.cuda.mem_get_info()[1]
    torch.cuda.set_per_process_memory_fraction(torch.cuda.memory_reserved() / total)
    filler = []  # of what torch keeps for other tests
    try:
        for size in (32 << 20, 2 << 20, 1 << 18):
            with contextlib.suppress(torch.OutOfMemoryError):
                while True:
                    filler.append(torch.empty(size, dtype=torch.uint8, device="cuda"))
        with pytest.raises(EngineError, match="MiB"):
            program(x)
    finally:
        filler.clear()
        torch.cuda.set_per_process_memory_fraction(1.0)
    torch.testing.assert_close(program(x), wanted)


def test_layers_have_times(case: tuple[str, str, Any], tmp_path: Path) -> None:
    name, precision, _ = case
    path = tmp_path / "it.pt2"
    torch.export.save(adopted(name, precision, source=True, output_format="exported_program"), path)
    found = portrt.files.profile(path, device="cuda", engine="tensorrt")
    (block,) = found.blocks
    assert block.layers
    # Layers that only rename memory take no time.
    assert sum(layer.seconds for layer in block.layers) > 1e-6
    assert all(layer.seconds >= 0 for layer in block.layers)
