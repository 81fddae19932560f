"""Calls of a tiny MLP by the C++ runtime in Python, over those by the Python one.

    portrt cpp build && python benchmarks/cpp_runtime.py

CPU time of this thread, in turns of both; the median of the turns counts. "operator" is
`torch.ops.portrt.execute_engine`, "module" the module that `compile` returns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from main import versions

import portrt
from portrt.runtime import policy
from portrt.runtime.calls import engine_calls

CALLS, TURNS = 2000, 15
RUNTIMES = ("python", "cpp")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the figures as JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    layers = [torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 8)]
    module = portrt.compile(
        torch.nn.Sequential(*layers).eval(),
        inputs=[portrt.Input(min_shape=(1, 16), opt_shape=(8, 16), max_shape=(64, 16))],
        engines="onnxruntime",
        min_block_size=1,
    )
    x = torch.randn(8, 16)
    (call,) = engine_calls(module)
    blobs = [getattr(module, blob.target) for blob in call.args[1]]
    operator = torch.ops.portrt.execute_engine.default
    ways = {
        "operator": lambda: operator([x], blobs, call.args[2]),
        "module": lambda: module(x),
    }
    found = {name: measured(way) for name, way in ways.items()}
    for name, row in found.items():
        print(f"{name}: {row['ratio']} ({row['cpp']} us over {row['python']} us)")
    if options.json:
        text = json.dumps({"versions": versions(), "microseconds": found}, indent=2)
        options.json.write_text(text + "\n", encoding="utf-8")


def measured(call: Callable[[], Any]) -> dict[str, float]:
    turns: dict[str, list[float]] = {runtime: [] for runtime in RUNTIMES}
    for _ in range(TURNS):
        for runtime in RUNTIMES:
            with policy(runtime=runtime):
                call()
                start = time.thread_time()
                for _ in range(CALLS):
                    call()
                turns[runtime].append((time.thread_time() - start) / CALLS * 1e6)
    medians = {runtime: statistics.median(times) for runtime, times in turns.items()}
    ratio = round(medians["cpp"] / medians["python"], 2)
    return {**{name: round(value, 2) for name, value in medians.items()}, "ratio": ratio}


if __name__ == "__main__":
    main()
