"""Every speed and memory figure that portrt states, as a ratio from one run: `make bench`.

Each side of a comparison runs in fresh processes, in turn with the other, and the median counts.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

STEPS = Path(__file__).with_name("steps.py")


def step(name: str, folder: Path, steps: Path = STEPS) -> dict[str, Any]:
    """One step in a fresh process; what it prints last is its result."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    environment["PORTRT_CACHE_DIR"] = "off"  # but in the steps that are about the cache
    done = subprocess.run(
        [sys.executable, str(steps), name, str(folder)],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL if "-v" not in sys.argv else None,
        text=True,
        env=environment,
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def in_turn(
    ours: str, by_hand: str, folder: Path, runs: int, steps: Path = STEPS
) -> tuple[list[Any], list[Any]]:
    """Both steps `runs` times, in turn; the first pair only warms the page cache."""
    pairs = [(step(ours, folder, steps), step(by_hand, folder, steps)) for _ in range(runs + 1)]
    return [a for a, _ in pairs[1:]], [b for _, b in pairs[1:]]


def median(results: list[Any], key: str) -> float:
    return statistics.median(result[key] for result in results)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-v", action="store_true", help="show what the steps print")
    parser.add_argument("--runs", type=int, default=5, help="pairs of fresh processes")
    parser.add_argument("--json", type=Path, help="also write the table as JSON")
    options = parser.parse_args()
    rows: list[tuple[str, float, float, str]] = []
    with tempfile.TemporaryDirectory(prefix="portrt-bench-") as name:
        folder = Path(name)
        ours, hand = in_turn("compile_model", "compile_by_hand", folder, options.runs)
        ratio = median(ours, "seconds") / median(hand, "seconds")
        note = f"{median(ours, 'seconds'):.2f} s over {median(hand, 'seconds'):.2f} s"
        rows.append(
            ("compile MiniLM (onnxruntime only) over export + ONNX by hand", ratio, 1.2, note)
        )
        first, second = in_turn("compile_first", "compile_again", folder, options.runs)
        ratio = median(second, "seconds") / median(first, "seconds")
        note = f"{median(second, 'seconds'):.2f} s over {median(first, 'seconds'):.2f} s"
        title = "compile MiniLM (tensorrt_rtx, onnxruntime) again, with a warm cache"
        rows.append((title, ratio, 0.35, note))
        size = step("file_size", folder)
        note = f"{size['file']} over {size['weights']} bytes"
        rows.append(
            ("file size over the weights' size", size["file"] / size["weights"], 1.05, note)
        )
        ours, hand = in_turn("load", "load_by_hand", folder, options.runs)
        ratio = median(ours, "seconds") / median(hand, "seconds")
        note = f"{median(ours, 'seconds'):.3f} s over {median(hand, 'seconds'):.3f} s"
        rows.append(("load and first call over load and session by hand", ratio, 1.15, note))
        ratio = median(ours, "peak_bytes") / median(hand, "peak_bytes")
        megabytes = [median(side, "peak_bytes") / 1e6 for side in (ours, hand)]
        note = f"{megabytes[0]:.0f} MB over {megabytes[1]:.0f} MB"
        rows.append(("peak memory of that", ratio, 1.15, note))
        for other, label in (("call_by_hand", "made by hand"), ("call_same_model", "of our model")):
            ours, hand = in_turn("call", other, folder, options.runs)
            ratio = median(ours, "ms") / median(hand, "ms")
            note = f"{median(ours, 'ms'):.3f} ms over {median(hand, 'ms'):.3f} ms"
            title = f"call, batch 1, length 32, over a bare session {label}"
            rows.append((title, ratio, 1.05, note))
        added = [step("added_cost", folder) for _ in range(options.runs)]
        note = f"{median(added, 'added_us'):.1f} us over {median(added, 'empty_us'):.1f} us"
        rows.append(
            ("cost added to a tiny call over an empty operator", median(added, "ratio"), 2.0, note)
        )
    show(rows)
    if options.json:
        options.json.write_text(json.dumps({"versions": versions(), "rows": rows}, indent=2) + "\n")
    return int(any(ratio > bar for _, ratio, bar, _ in rows))


def versions() -> dict[str, str]:
    names = ("torch", "onnxruntime", "openvino", "onnxscript", "transformers", "portrt")
    installed = {item.name for item in metadata.distributions()}
    found = {name: metadata.version(name) for name in names if name in installed}
    return {
        "date": date.today().isoformat(),
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        **found,
    }


def show(rows: list[tuple[str, float, float, str]]) -> None:
    table = Table("measure", "ratio", "bar", "", "figures")
    for label, ratio, bar, note in rows:
        table.add_row(label, f"{ratio:.3f}", f"<= {bar}", "ok" if ratio <= bar else "MISSED", note)
    console = Console(width=150)
    console.print(", ".join(f"{name} {version}" for name, version in versions().items()))
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
