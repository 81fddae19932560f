"""Models on a GPU: PyTorch, torch.compile and CUDA graphs beside portrt, as ratios of one run.

    python benchmarks/gpu_peers.py --json RESULT.json

One process a model, which times every contender in turn and writes each figure as soon as it has
it. `gpu_us` is the time of a call in a row of calls, by CUDA events; `host_us` the time until a
call returns. Ratios are over the fastest contender. `--tiny --device cpu` tries the code.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from main import versions
from peer_models import GPU_MODELS

ROUNDS, CALLS = 9, 20
OURS = ("portrt", "portrt graphs", "portrt inductor", "portrt inductor graphs")
CONTENDERS = ("eager", "eager graph", "torch.compile", "reduce-overhead", *OURS)
# With --autotune, instead of these: compiling takes minutes.
TUNED = ("reduce-overhead", "max-autotune", "portrt inductor graphs")


class Run:
    """One model, and the calls of its contenders.

    Args:
        name: Of GPU_MODELS.
        device: "cuda", or "cpu" to try the code.
        tiny: Small sizes, to try the code.
        folder: For the compiled program.
    """

    def __init__(self, name: str, device: str, tiny: bool, folder: Path) -> None:
        torch.manual_seed(0)
        model, inputs = GPU_MODELS[name](tiny)
        dtype = torch.float16 if device == "cuda" else torch.float32
        self.model = model.eval().to(device, dtype)
        self.inputs = [
            item.to(device, dtype if item.is_floating_point() else item.dtype) for item in inputs
        ]
        self.device, self.path = device, folder / "model.pt2"

    def compile(self, autotune: bool) -> None:
        """Compile with portrt, and save."""
        import portrt

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = portrt.compile(
                self.model, inputs=self.inputs, engines="inductor", max_autotune=autotune
            )
        portrt.save(program, self.path)

    def call(self, contender: str) -> Callable[[], Any]:
        model, inputs = self.model, self.inputs
        if contender == "eager":
            return lambda: model(*inputs)
        if contender == "eager graph":
            return graphed(lambda: model(*inputs))
        if contender == "torch.compile":
            compiled = torch.compile(model, dynamic=False)
            return lambda: compiled(*inputs)
        if contender in ("reduce-overhead", "max-autotune"):
            fast = torch.compile(model, dynamic=False, mode=contender)
            return lambda: fast(*inputs)
        import portrt

        options: dict[str, Any] = {"trust": "host-code"}
        if "inductor" not in contender:
            options = {"engines": "onnxruntime"}  # none is stored: the source runs
        if "graphs" in contender:
            options["cuda_graphs"] = 8
        module = portrt.load(self.path, output_format="module", **options)
        return lambda: module(*inputs)

    def wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def figures(self, contender: str, wanted: torch.Tensor) -> dict[str, Any]:
        started = time.perf_counter()
        call = self.call(contender)
        for _ in range(4):
            found = call()
        self.wait()
        seconds = time.perf_counter() - started
        error = ((found - wanted).double().norm() / wanted.double().norm()).item()
        gpu, host = [], []
        for _ in range(ROUNDS):
            self.wait()
            begin = time.perf_counter()
            for _ in range(CALLS):
                call()
            self.wait()
            gpu.append((time.perf_counter() - begin) / CALLS * 1e6)
            for _ in range(3):
                self.wait()
                begin = time.perf_counter()
                call()
                host.append((time.perf_counter() - begin) * 1e6)
        return {
            "gpu_us": round(statistics.median(gpu), 1),
            "spread": round(max(gpu) / min(gpu), 2),
            "host_us": round(statistics.median(host), 1),
            "first_calls_s": round(seconds, 1),
            "relative_error": float(f"{error:.2g}"),
        }


def graphed(call: Callable[[], Any]) -> Callable[[], Any]:
    """The call as a CUDA graph, with inputs that stay where they are."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = call()

    def replay() -> Any:
        graph.replay()
        return kept

    return replay


def one(options: argparse.Namespace) -> None:
    """Time a model's contenders; writes each figure at once."""
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        run = Run(options.model, options.device, options.tiny, Path(folder))
        result: dict[str, Any] = {}

        def note(key: str, value: Any) -> None:
            result[key] = value
            options.json.write_text(json.dumps(result))

        started = time.perf_counter()
        try:
            run.compile(options.autotune)
            note("compile_s", round(time.perf_counter() - started, 1))
        except Exception as err:
            note("compile_error", f"{type(err).__name__}: {err}"[:400])
        (options.json.with_suffix(".ready")).touch()
        while options.go is not None and not options.go.exists():  # models are timed in turn
            time.sleep(0.2)
        wanted = run.model(*run.inputs)
        for contender in TUNED if options.autotune else CONTENDERS:
            if options.device == "cpu" and ("graph" in contender or "-" in contender):
                continue
            try:
                note(contender, run.figures(contender, wanted))
            except Exception as err:
                note(contender, {"error": f"{type(err).__name__}: {err}"[:400]})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    parser.add_argument("--go", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--only", default="", help="models, separated by ';'; all by default")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--autotune", action="store_true", help="with kernels that were measured")
    parser.add_argument("--minutes", type=float, default=8.5, help="time after which it stops")
    options = parser.parse_args()
    if options.model:
        one(options)
        return 0
    end = time.monotonic() + options.minutes * 60
    names = [name for name in GPU_MODELS if not options.only or name in options.only.split(";")]
    folder = options.json.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    running = []
    for index, name in enumerate(names):  # they compile side by side
        path, go = folder / f"{index}.json", folder / f"{index}.go"
        command = [sys.executable, __file__, "--json", str(path), "--model", name, "--go", str(go)]
        command += ["--device", options.device, *(["--tiny"] if options.tiny else [])]
        command += ["--autotune"] if options.autotune else []
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PORTRT_CACHE_DIR": "off"}
        running.append((name, path, go, subprocess.Popen(command, env=environment)))
    while any(p.poll() is None and not f.with_suffix(".ready").exists() for _, f, _, p in running):
        if time.monotonic() > end:
            break
        time.sleep(0.5)
    figures: dict[str, Any] = {"versions": versions(), "device": options.device}
    if options.device == "cuda":
        figures["device"] = torch.cuda.get_device_name()
    for name, path, go, process in running:
        go.touch()
        try:
            process.wait(max(end - time.monotonic(), 1))
        except subprocess.TimeoutExpired:
            process.kill()
        found = json.loads(path.read_text()) if path.exists() else {"error": "nothing"}
        timed = {
            key: item["gpu_us"]
            for key, item in found.items()
            if isinstance(item, dict) and "gpu_us" in item
        }
        for key, value in timed.items():
            found[key]["ratio"] = round(value / min(timed.values()), 2)
        figures[name] = found
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
        print(name, {key: found[key]["ratio"] for key in timed}, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
