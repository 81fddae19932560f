"""Speed and memory of files with 1 GB of weights, as ratios from one run: `make bench-files`.

Takes 5 GB of disk and 3 GB of memory. Sides of a comparison run in fresh processes, in turn, and
the median counts.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from file_steps import WEIGHTS_BYTES
from main import in_turn, median, show, step, versions

STEPS = Path(__file__).with_name("file_steps.py")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-v", action="store_true", help="show what the steps print")
    parser.add_argument("--runs", type=int, default=3, help="pairs of fresh processes")
    parser.add_argument("--json", type=Path, help="also write the table as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="portrt-bench-") as name:
        rows = measure(Path(name), options.runs)
    show(rows)
    if options.json:
        options.json.write_text(json.dumps({"versions": versions(), "rows": rows}, indent=2) + "\n")
    return int(any(ratio > bar for _, ratio, bar, _ in rows))


def measure(folder: Path, runs: int) -> list[tuple[str, float, float, str]]:
    rows = []
    peak = step("compile_large", folder, STEPS)["peak_bytes"]
    note = f"{peak / 1e6:.0f} MB over {WEIGHTS_BYTES / 1e6:.0f} MB, all of the process counted"
    rows.append(
        ("peak memory of compile and save over the weights", peak / WEIGHTS_BYTES, 2.5, note)
    )
    step("make_others", folder, STEPS)
    ours, hand = in_turn("open_large", "open_by_hand", folder, runs, STEPS)
    base = [step("open_one_node", folder, STEPS) for _ in range(runs)]
    seconds = [median(side, "seconds") for side in (ours, base, hand)]
    note = f"{seconds[0]:.2f} s less {seconds[1]:.2f} s, over {seconds[2]:.2f} s"
    title = "open 1 GB and run once, less a one-node program, over safetensors + session by hand"
    rows.append((title, (seconds[0] - seconds[1]) / seconds[2], 1.2, note))
    peaks = [median(side, "peak_bytes") for side in (ours, base, hand)]
    note = f"({peaks[0] / 1e6:.0f} - {peaks[1] / 1e6:.0f}) MB; by hand {peaks[2] / 1e6:.0f} MB"
    ratio = (peaks[0] - peaks[1]) / WEIGHTS_BYTES
    rows.append(("its peak memory, less a one-node program, over the weights", ratio, 1.3, note))
    for title, bar, ours_step, other_step in (
        (
            "portrt.load of a small program over torch.export.load",
            1.0,
            "load_small",
            "load_by_torch",
        ),
        ("portrt inspect of 10 GB over 100 MB", 1.2, "inspect_10_gb", "inspect_100_mb"),
        ("add-engine to 1 GB beyond the build, over copying it", 1.5, "add_engine", "copy_file"),
    ):
        ours, other = in_turn(ours_step, other_step, folder, runs, STEPS)
        seconds = [median(side, "seconds") for side in (ours, other)]
        note = f"{seconds[0]:.3f} s over {seconds[1]:.3f} s"
        rows.append((title, seconds[0] / seconds[1], bar, note))
        if ours_step == "inspect_10_gb":
            note = f"{seconds[0]:.3f} s, the whole command, over 1 s"
            rows.append(("portrt inspect of 10 GB, in seconds", seconds[0], 0.3, note))
    return rows


if __name__ == "__main__":
    sys.exit(main())
