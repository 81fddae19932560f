"""Models on the CPU: PyTorch, torch.compile, ONNX Runtime and OpenVINO beside portrt.

    make bench-peers

Every contender has a process of its own, which stays alive; they are called in turn, and the median
of the turns counts. Ratios are of one run: `best_peer` is the time of the fastest peer over ours,
1 or more where portrt is not slower. A contender whose result differs from eager's does not count.
"""

from __future__ import annotations

import argparse
import json
import math
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
from peer_models import CPU_MODELS

OURS = "portrt"
PEERS = ("eager", "torch.compile", "torch.compile frozen", "onnxruntime 20", "onnxruntime 23")
CONTENDERS = (*PEERS, "openvino", OURS)
# A turn lasts about this long, and there are so many.
TURN_S, TURNS = 0.25, 15
# Of the norm of eager's result.
LARGEST_ERROR = 1e-3


def onnx_file(model: torch.nn.Module, inputs: Any, opset: int, folder: Path) -> str:
    path = str(folder / f"model_{opset}.onnx")
    exported = torch.onnx.export(
        model, tuple(inputs), dynamo=True, opset_version=opset, verbose=False
    )
    assert exported is not None
    exported.save(path)
    return path


def onnxruntime_call(path: str, inputs: Any) -> Callable[[], torch.Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_inputs()]

    def call() -> torch.Tensor:
        given = {name: item.numpy() for name, item in zip(names, inputs, strict=False)}
        return torch.from_numpy(session.run(None, given)[0])

    return call


def openvino_call(path: str, inputs: Any) -> Callable[[], torch.Tensor]:
    import openvino

    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(path, "CPU", options)
    request = compiled.create_infer_request()
    count = len(compiled.inputs)

    def call() -> torch.Tensor:
        given = [item.numpy() for item in inputs[:count]]
        results = request.infer(given, share_inputs=True, share_outputs=True)
        return torch.from_numpy(next(iter(results.values())))

    return call


def call_of(contender: str, model: torch.nn.Module, inputs: Any, folder: Path) -> Callable[[], Any]:
    if contender == "eager":
        return lambda: model(*inputs)
    if contender.startswith("torch.compile"):
        torch._inductor.config.freezing = contender.endswith("frozen")
        compiled = torch.compile(model, dynamic=False)
        return lambda: compiled(*inputs)
    if contender.startswith("onnxruntime"):
        opset = int(contender.split()[1])
        return onnxruntime_call(onnx_file(model, inputs, opset, folder), inputs)
    if contender == "openvino":
        return openvino_call(onnx_file(model, inputs, 20, folder), inputs)
    import portrt

    module = portrt.compile(
        model, inputs=list(inputs), optimize_for="latency", output_format="module"
    )
    print(json.dumps({"runs": [row.runs_as for row in portrt.runtime.report(module)]}), flush=True)
    return lambda: module(*inputs)


def serve(options: argparse.Namespace) -> None:
    """Prepare a contender; then, for each number read, call so often and print the seconds."""
    torch.manual_seed(0)
    model, inputs = CPU_MODELS[options.model](options.tiny)
    model = model.eval()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        started = time.perf_counter()
        call = call_of(options.contender, model, inputs, options.folder)
        found = call().clone()
        seconds = time.perf_counter() - started
        torch.save(found, options.folder / f"{options.contender}.pt")
        print(json.dumps({"first_s": round(seconds, 1)}), flush=True)
        for line in sys.stdin:
            begin = time.perf_counter()
            for _ in range(int(line)):
                call()
            print(json.dumps({"seconds": time.perf_counter() - begin}), flush=True)


class Contender:
    """A process that calls one model by one library."""

    def __init__(self, name: str, model: str, tiny: bool, folder: Path) -> None:
        command = [sys.executable, __file__, "--model", model, "--contender", name]
        command += ["--folder", str(folder), *(["--tiny"] if tiny else [])]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PORTRT_CACHE_DIR": "off"}
        self.name, self.notes = name, dict[str, Any]()
        self._errors = (folder / f"{name}.log").open("w+")
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment,
        )

    def wait(self) -> None:
        """Wait until it is prepared; `notes` has what it said, or its error."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                self.notes |= json.loads(line)
                if "first_s" in self.notes:
                    return
        self._errors.seek(0)
        self.notes["error"] = (self._errors.read().strip().splitlines() or ["ended"])[-1][:300]

    def seconds(self, calls: int) -> float:
        """Call so often; seconds of a call."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{calls}\n")
        self._process.stdin.flush()
        return float(json.loads(self._process.stdout.readline())["seconds"]) / calls

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._errors.close()


def timed(model: str, tiny: bool, turns: int) -> dict[str, Any]:
    """The figures of a model: a row for each contender."""
    with tempfile.TemporaryDirectory() as name:
        folder, contenders = Path(name), list[Contender]()
        try:
            for contender in CONTENDERS:
                contenders.append(Contender(contender, model, tiny, folder))
                contenders[-1].wait()
            return compared(contenders, folder, turns)
        finally:
            for running in contenders:
                running.end()


def compared(contenders: list[Contender], folder: Path, turns: int) -> dict[str, Any]:
    wanted = torch.load(folder / "eager.pt").double()
    valid = []
    for each in contenders:
        if "error" in each.notes:
            continue
        found = torch.load(folder / f"{each.name}.pt").double()
        error = float((found - wanted).norm() / wanted.norm())
        each.notes["relative_error"] = float(f"{error:.1e}")
        if error <= LARGEST_ERROR:
            valid.append(each)
    counts = {each.name: max(1, round(TURN_S / each.seconds(3))) for each in valid}
    times: dict[str, list[float]] = {each.name: [] for each in valid}
    for _ in range(turns):
        for each in valid:
            times[each.name].append(each.seconds(counts[each.name]))
    rows: dict[str, Any] = {each.name: each.notes for each in contenders}
    for name, found_times in times.items():
        median = statistics.median(found_times)
        rows[name]["ms"] = float(f"{median * 1e3:.4g}")
        rows[name]["spread"] = round(max(found_times) / min(found_times), 2)
    peers = {name: row["ms"] for name, row in rows.items() if "ms" in row and name != OURS}
    if "ms" in rows[OURS]:
        rows["best_peer"] = min(peers, key=lambda name: peers[name])
        rows["ratio"] = round(min(peers.values()) / rows[OURS]["ms"], 3)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    parser.add_argument("--only", default="", help="models, comma separated; all by default")
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--tiny", action="store_true", help="small sizes, to try the code")
    parser.add_argument("--model", help=argparse.SUPPRESS)
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        serve(options)
        return 0
    figures: dict[str, Any] = {"versions": versions(), "threads": torch.get_num_threads()}
    ratios = []
    for name in CPU_MODELS:
        if options.only and name not in options.only.split(","):
            continue
        figures[name] = found = timed(name, options.tiny, options.turns)
        if "ratio" in found:
            ratios.append(found["ratio"])
        times = {
            key: row["ms"] for key, row in found.items() if isinstance(row, dict) and "ms" in row
        }
        print(
            name,
            found.get("ratio"),
            found.get("best_peer"),
            found[OURS].get("runs"),
            times,
            flush=True,
        )
        if ratios:
            mean = math.exp(statistics.fmean(map(math.log, ratios)))
            figures["geomean"] = round(mean, 3)
        if options.json:
            options.json.write_text(json.dumps(figures, indent=1) + "\n")
    print("best peer's time over ours, geometric mean:", figures.get("geomean"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
