"""TensorRT on a GPU, as ratios from one run: `python benchmarks/gpu.py PLANS`.

PLANS is a folder as tests/gpu/plans.py describes it. Every ratio is portrt over TensorRT's own
Python interface on the same plan, unless its row says otherwise, measured in turn in one process,
and the median of the rounds counts. Needs `tensorrt_dispatch` 10 and the lean runtime library of
TensorRT 8.6.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import platform
import resource
import statistics
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch

import portrt
from portrt.targets.lean_library import find_lean_library

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "gpu"))

from plans import INPUTS, fresh

ROUNDS = 9
SERVED_ROUNDS = 5
WIDTHS = {"mlp": 256, "resnet": 10, "encoder": 128}
LARGEST = {"mlp": (256,), "resnet": (32,), "encoder": (32, 128)}


def program_of(folder: Path, name: str, precision: str, **options: Any) -> Any:
    """A plan as a saved and loaded program."""
    dims = [
        torch.export.Dim(dim, max=most)
        for dim, most in zip(("batch", "length"), LARGEST[name], strict=False)
    ]
    program = portrt.from_plan(
        folder / f"{name}.{precision}.plan",
        dict(zip(INPUTS[name], fresh(name, 4, 0), strict=True)),
        outputs=lambda *x: {"y": torch.empty(x[0].shape[0], WIDTHS[name])},
        dynamic_shapes={key: dict(enumerate(dims)) for key in INPUTS[name]},
        trust="host-code",
        version_compatible=True,
        lean_runtime="outside",
        fallback="error",
        output_format="exported_program",
    )
    path = folder / f"{name}.{precision}.pt2"
    torch.export.save(program, path)
    return portrt.load(path, trust="host-code", output_format="module", **options)


class Bare:
    """The same plan by TensorRT's interface alone.

    Args:
        path: The plan.
        inputs: On the GPU, of the engine's types.
        width: Size of the output's second dimension.
    """

    runtime: Any = None
    kept: list[Any] = []  # noqa: RUF012  (what must outlive the engines)

    def __init__(self, path: Path, inputs: dict[str, torch.Tensor], width: int) -> None:
        import tensorrt_dispatch as trt

        if Bare.runtime is None:
            logger = trt.Logger(trt.Logger.ERROR)
            loader = trt.Runtime(logger)
            loader.engine_host_code_allowed = True
            Bare.runtime = loader.load_runtime(str(find_lean_library("8.6.0")))
            Bare.runtime.engine_host_code_allowed = True
            Bare.kept += [logger, loader]
        self.engine = Bare.runtime.deserialize_cuda_engine(path.read_bytes())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            self.context = self.engine.create_execution_context_without_device_memory()
            size = self.engine.device_memory_size
        self.memory = torch.empty(size, dtype=torch.uint8, device="cuda")
        self.context.device_memory = self.memory.data_ptr()
        self.inputs = inputs
        self.output = torch.empty(len(next(iter(inputs.values()))), width, device="cuda")
        self.bind()

    def bind(self) -> None:
        for name, tensor in self.inputs.items():
            self.context.set_input_shape(name, tuple(tensor.shape))
            self.context.set_tensor_address(name, tensor.data_ptr())
        self.context.set_tensor_address("y", self.output.data_ptr())

    def execute(self) -> None:
        self.context.execute_async_v3(torch.cuda.current_stream().cuda_stream)


def gpu_us(call: Callable[[], Any], calls: int = 200) -> float:
    """GPU time of one call, between two events around many."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(calls):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / calls * 1000


def host_us(call: Callable[[], Any], calls: int = 1000) -> float:
    """Host time of one call, while the GPU keeps up."""
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(calls):
        call()
    took = time.perf_counter() - started
    torch.cuda.synchronize()
    return took / calls * 1e6


def in_turn(
    measure: Callable[[Callable[[], Any]], float], ours: Callable[[], Any], bare: Callable[[], Any]
) -> tuple[float, float]:
    """Medians of both."""
    for call in (ours, bare):
        for _ in range(50):
            call()
    torch.cuda.synchronize()
    pairs = [(measure(ours), measure(bare)) for _ in range(ROUNDS)]
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


def on_gpu(inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    return [item.cuda() for item in inputs]


def narrow(name: str, inputs: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
    """As the engine takes them: TensorRT 8.6 has no int64."""
    return {
        key: item.int() if item.dtype == torch.int64 else item
        for key, item in zip(INPUTS[name], inputs, strict=True)
    }


def gpu_time(folder: Path, precision: str) -> tuple[float, float]:
    inputs = on_gpu(fresh("encoder", 32, 0, 128))
    program = program_of(folder, "encoder", precision)
    bare = Bare(folder / f"encoder.{precision}.plan", narrow("encoder", inputs), 128)
    with torch.cuda.stream(torch.cuda.Stream()):
        same = torch.cuda.current_stream()
        found = in_turn(gpu_us, lambda: program(*inputs), bare.execute)
        same.synchronize()
        torch.testing.assert_close(program(*inputs), bare.output)
    return found


def host_time(folder: Path) -> tuple[float, float]:
    inputs = on_gpu(fresh("mlp", 8, 0))
    program = program_of(folder, "mlp", "fp32")
    bare = Bare(folder / "mlp.fp32.plan", narrow("mlp", inputs), 256)
    context, x, y = bare.context, inputs[0], bare.output
    with torch.cuda.stream(torch.cuda.Stream()):
        stream = torch.cuda.current_stream().cuda_stream

        def loop() -> None:
            context.set_input_shape("x", (8, 256))
            context.set_tensor_address("x", x.data_ptr())
            context.set_tensor_address("y", y.data_ptr())
            context.execute_async_v3(stream)

        found = in_turn(host_us, lambda: program(x), loop)
        torch.testing.assert_close(program(x), y)
    return found


def graph_replay(folder: Path, name: str, batch: int, length: int) -> tuple[float, float]:
    inputs = on_gpu(fresh(name, batch, 0, length))
    program = program_of(folder, name, "fp32", cuda_graphs=4)
    bare = Bare(folder / f"{name}.fp32.plan", narrow(name, inputs), WIDTHS[name])
    with torch.cuda.stream(torch.cuda.Stream()):
        bare.execute()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            bare.execute()
        found = in_turn(gpu_us, lambda: program(*inputs), graph.replay)
        torch.testing.assert_close(program(*inputs), bare.output)
    return found


def requests_per_second(folder: Path, graphs: int | None, counts: Sequence[int]) -> list[float]:
    """Requests of batch 1, each waited for, by so many threads on streams of their own."""
    program = program_of(folder, "resnet", "fp32", cuda_graphs=graphs)
    inputs = [on_gpu(fresh("resnet", 1, index))[0] for index in range(max(counts))]
    wanted = [program(x).clone() for x in inputs]
    torch.cuda.synchronize()

    def answers(index: int) -> bool:
        return torch.equal(program(inputs[index]), wanted[index])

    return _served(counts, lambda index: program(inputs[index]), answers)


def bare_requests_per_second(folder: Path, counts: Sequence[int], *, graphs: bool) -> list[float]:
    """The same by TensorRT alone, with an engine for each thread, on inputs that stay in place."""
    engines, calls = [], []  # a graph does not keep its engine
    for index in range(max(counts)):
        inputs = narrow("resnet", on_gpu(fresh("resnet", 1, index)))
        engine = Bare(folder / "resnet.fp32.plan", inputs, WIDTHS["resnet"])
        engines.append(engine)
        calls.append(engine.execute)
        if graphs:
            engine.execute()
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                engine.execute()
            calls[-1] = graph.replay
    return _served(counts, lambda index: calls[index](), lambda _: True)


def _served(
    counts: Sequence[int], call: Callable[[int], Any], answers: Callable[[int], bool]
) -> list[float]:
    """Requests per second by so many threads, in turn; the median of the rounds."""
    rounds = [[_serve(count, call, answers) for count in counts] for _ in range(SERVED_ROUNDS)]
    return [statistics.median(found) for found in zip(*rounds, strict=True)]


def _serve(
    threads: int,
    call: Callable[[int], Any],
    answers: Callable[[int], bool],
    seconds: float = 1.0,
) -> float:
    counts = [0] * threads
    wrong: list[int] = []
    begin, stop = threading.Barrier(threads + 1), threading.Event()

    def work(index: int) -> None:
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for _ in range(5):
                call(index)
                stream.synchronize()
            begin.wait()
            while not stop.is_set():
                call(index)
                stream.synchronize()
                counts[index] += 1
            if not answers(index):
                wrong.append(index)

    workers = [threading.Thread(target=work, args=(index,)) for index in range(threads)]
    for worker in workers:
        worker.start()
    begin.wait()
    started = time.perf_counter()
    time.sleep(seconds)
    stop.set()
    took = time.perf_counter() - started
    for worker in workers:
        worker.join()
    if wrong:
        raise SystemExit(f"threads {wrong} got other answers")
    return sum(counts) / took


def shared_workspace(folder: Path) -> tuple[float, float]:
    """Peak of torch's memory for three programs called in turn, and what one workspace explains."""
    names = list(INPUTS)
    programs = {name: program_of(folder, name, "fp32") for name in names}
    sizes = {"mlp": 256, "resnet": 32, "encoder": 32}
    inputs = {name: on_gpu(fresh(name, sizes[name], 0, 128)) for name in names}
    for name in names:
        programs[name](*inputs[name])
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    for name in names * 3:
        programs[name](*inputs[name])
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() - before
    largest = max(
        Bare(folder / f"{name}.fp32.plan", narrow(name, inputs[name]), WIDTHS[name]).memory.numel()
        for name in names
    )
    return peak / 2**20, largest / 2**20


def growth(folder: Path, calls: int = 10_000) -> dict[str, float]:
    """Memory in MiB that calls of changing sizes leave behind."""
    program = program_of(folder, "encoder", "fp32")
    shapes = [(1 + i % 32, 1 + (i * 7) % 128) for i in range(256)]
    inputs = [on_gpu(fresh("encoder", *shape[:1], 0, shape[1])) for shape in shapes]

    def run(count: int) -> None:
        for index in range(count):
            program(*inputs[index % len(inputs)])
        torch.cuda.synchronize()
        gc.collect()

    run(2000)  # every size is known then
    torch.cuda.empty_cache()
    device, host = torch.cuda.mem_get_info()[0], _resident()
    run(calls)
    torch.cuda.empty_cache()
    return {
        "device": (device - torch.cuda.mem_get_info()[0]) / 2**20,
        "host": (_resident() - host) / 2**20,
    }


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def facts() -> dict[str, str]:
    import tensorrt_dispatch

    words = Path("/proc/driver/nvidia/version").read_text().split()
    return {
        "date": date.today().isoformat(),
        "gpu": torch.cuda.get_device_name(),
        "driver": next(word for word in words if word[:1].isdigit() and "." in word),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "tensorrt_dispatch": str(tensorrt_dispatch.__version__),
        "lean runtime": str(find_lean_library("8.6.0")).rpartition("/")[2],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("plans", type=Path)
    parser.add_argument("--json", type=Path, help="also write the table as JSON")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    rows: list[tuple[str, float, float, float, str]] = []

    def row(what: str, ours: float, bare: float, bar: str) -> None:
        rows.append((what, ours, bare, ours / bare if bare else float("nan"), bar))
        print(f"{what:58} {ours:10.2f} {bare:10.2f} {rows[-1][3]:7.3f}   {bar}", flush=True)

    print(f"{'us, or as said':58} {'portrt':>10} {'TensorRT':>10} {'ratio':>7}   bar")
    for precision in ("fp32", "fp16"):
        row(f"GPU time, encoder {precision} 32 x 128",
            *gpu_time(options.plans, precision), "<= 1.02")  # fmt: skip
    row("host time, mlp batch 8", *host_time(options.plans), "<= 1.5")
    row("CUDA graph replay, encoder 32 x 128",
        *graph_replay(options.plans, "encoder", 32, 128), "<= 1.05")  # fmt: skip
    row("CUDA graph replay, resnet batch 32",
        *graph_replay(options.plans, "resnet", 32, 0), "")  # fmt: skip
    row("CUDA graph replay, mlp batch 8", *graph_replay(options.plans, "mlp", 8, 0), "")
    counts = (1, 4, 8)
    for graphs, bar in ((None, ""), (64, ">= 2")):
        how = "CUDA graphs" if graphs else "plain"
        ours = requests_per_second(options.plans, graphs, counts)
        bare = bare_requests_per_second(options.plans, counts, graphs=bool(graphs))
        for whose, found, said in (("portrt", ours, bar), ("TensorRT alone", bare, "")):
            for threads, per_second in zip(counts[1:], found[1:], strict=True):
                what = f"requests/s, resnet 1, {threads} threads over 1, {how}, {whose}"
                row(what, per_second, found[0], said if threads == 8 else "")
    row("MiB, peak of 3 programs over the largest workspace",
        *shared_workspace(options.plans), "<= 1.1")  # fmt: skip
    grown = growth(options.plans)
    for kind, mebibytes in grown.items():
        row(f"MiB of {kind} memory after 10,000 calls of changing sizes", mebibytes, 0, "no growth")
    if options.json:
        keys = ("what", "portrt", "tensorrt", "ratio", "bar")
        table = [dict(zip(keys, item, strict=True)) for item in rows]
        options.json.write_text(json.dumps({**facts(), "rows": table}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
