"""What a deployed process imports and waits for: load a tiny program, call it once.

    python benchmarks/deployed.py                      # this checkout alone
    python benchmarks/deployed.py --before OTHER/src   # beside the sources of another checkout

The file is compiled by this checkout, and both sides read it, in fresh processes, in turn. Time is
measured from after `import torch` to the end of the first call: CPU time of all threads, which
other work on the machine changes little, and wall-clock time. Files are read by
`torch.export.load`, and, as another side, by `portrt.load` as a module.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from main import versions

CLOCKS = ("cpu_seconds", "seconds")
OURS = Path(__file__).parent.parent / "src"

STEP = """
import json, sys, time, warnings
warnings.simplefilter("ignore")
import torch
x = torch.ones(2, 8)
started, cpu_started = time.perf_counter(), time.process_time()
if sys.argv[3] == "portrt.load":
    import portrt
    y = portrt.load(sys.argv[1], output_format="module")(x)
else:
    y = torch.export.load(sys.argv[1]).module()(x)
seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
named = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "portrt"}
lines = 0
for module in named.values():
    with open(module.__file__, encoding="utf-8") as file:
        lines += sum(1 for _ in file)
root = sys.modules["portrt"].__file__
assert root.startswith(sys.argv[2]), root
print(json.dumps({"seconds": seconds, "cpu_seconds": cpu_seconds, "sum": y.sum().item(),
                  "modules": len(named), "lines": lines,
                  "compiler": sorted(name for name in named if "portrt.compiler" in name)}))
"""

COMPILE = """
import sys, torch, portrt
model = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.ReLU(), torch.nn.Linear(4, 4)).eval()
x = portrt.Input(min_shape=(1, 8), opt_shape=(4, 8), max_shape=(32, 8))
program = portrt.compile(model, inputs=[x], engines="onnxruntime", min_block_size=1,
                         output_format="exported_program")
torch.export.save(program, sys.argv[1])
"""


def python(code: str, *args: str, source: Path) -> str:
    """What a fresh process prints, with the sources of one side."""
    environment = {**os.environ, "PYTHONPATH": str(source), "PORTRT_CACHE_DIR": "off"}
    return subprocess.run(
        [sys.executable, "-c", code, *args],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ).stdout


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--before", type=Path, help="the folder src of another checkout")
    parser.add_argument("--runs", type=int, default=15, help="pairs of fresh processes")
    parser.add_argument("--json", type=Path, help="also write the figures as JSON")
    options = parser.parse_args()
    sides = {"now": (OURS.resolve(), ""), "by_portrt_load": (OURS.resolve(), "portrt.load")}
    if options.before:
        sides["before"] = (options.before.resolve(), "")
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory(prefix="portrt-bench-") as folder:
        path = str(Path(folder) / "tiny.pt2")
        python(COMPILE, path, source=OURS)
        for run in range(options.runs + 1):  # the first pair only warms the page cache
            for side, (source, way) in sides.items():
                result = json.loads(python(STEP, path, str(source), way, source=source))
                found[side] += [result] if run else []
    sums = {result["sum"] for results in found.values() for result in results}
    assert len(sums) == 1, sums
    figures: dict[str, Any] = {"versions": versions()}
    for side, results in found.items():
        figures[side] = {
            "modules": results[0]["modules"],
            "lines": results[0]["lines"],
            "modules_of_the_compiler": len(results[0]["compiler"]),
        }
        for clock in CLOCKS:
            seconds = [result[clock] for result in results]
            figures[side][f"{clock}_median"] = round(statistics.median(seconds), 4)
            figures[side][f"{clock}_min"] = round(min(seconds), 4)
    compared = [("by_portrt_load", "now"), *([("now", "before")] if options.before else [])]
    for side, other in compared:
        pairs = list(zip(found[side], found[other], strict=True))
        entry = figures[f"{side}_over_{other}"] = {}
        for clock in CLOCKS:
            medians = [figures[name][f"{clock}_median"] for name in (side, other)]
            ratios = [one[clock] / two[clock] for one, two in pairs]
            entry[f"{clock}_ratio_of_medians"] = round(medians[0] / medians[1], 3)
            entry[f"{clock}_median_of_ratios"] = round(statistics.median(ratios), 3)
    text = json.dumps(figures, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")
    bars = {"by_portrt_load_over_now": 0.5, "now_over_before": 1.0}
    return int(
        any(figures[n]["cpu_seconds_median_of_ratios"] > bars[n] for n in bars.keys() & figures)
    )


if __name__ == "__main__":
    sys.exit(main())
