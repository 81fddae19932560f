"""One entry of the zoo in a process of its own: `python -m zoo.measure NAME OUT`.

Compiles it static and dynamic, runs both files in another new process, compares with eager on fresh
inputs, and builds TensorRT-RTX engines of the dynamic one; what it found goes to OUT as JSON.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import portrt
from zoo.compiled import (
    compile_entry,
    eager_results,
    engine_count,
    fresh_calls,
    largest_error,
    modules_needed,
    results,
    results_in_new_process,
)
from zoo.registry import ZOO, Listed, import_all

_STATUS = Path("/proc/self/status")


def reset_peak() -> None:
    """Start to measure the peak memory of this process anew (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_mb() -> int:
    lines = _STATUS.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1024


def measure(listed: Listed, how: str) -> dict[str, Any]:
    """One row of the table, static or dynamic."""
    entry, dynamic = listed.entry(), how == "dynamic"
    calls = fresh_calls(entry, dynamic=dynamic)
    wanted = eager_results(entry, calls)
    reset_peak()
    before, started = peak_mb(), time.perf_counter()
    program, left_out = compile_entry(entry, dynamic=dynamic)
    row: dict[str, Any] = {
        "compile_s": round(time.perf_counter() - started, 2),
        "peak_mb": peak_mb(),
        "mb_before": before,
        "engines": engine_count(program),
        "left_out": left_out,
        "calls": len(calls),
    }
    with tempfile.TemporaryDirectory() as folder:
        needs = modules_needed(wanted)
        found = results_in_new_process([program], [calls], needs, Path(folder))[0]
    row["error_in_new_process"] = largest_error(found, wanted)
    row["error"] = largest_error(results(program.module(), calls), wanted)
    worst = max(row["error"][1], row["error_in_new_process"][1])
    row["same"] = worst <= entry.tolerance
    row["why_not_one"] = entry.why_not_one
    row["fixed"] = entry.fixed
    if dynamic or not entry.dims:
        row["tensorrt_rtx"] = build_rtx(listed, dynamic=dynamic)
    return row


def build_rtx(listed: Listed, *, dynamic: bool) -> dict[str, Any]:
    """Whether TensorRT-RTX's builder makes the engines; what it says where it does not."""
    started = time.perf_counter()
    try:
        program, left_out = compile_entry(
            listed.entry(), dynamic=dynamic, engines=("tensorrt_rtx",)
        )
    except portrt.PortrtError as err:
        return {"engines": 0, "says": err.happened}
    seconds = round(time.perf_counter() - started, 2)
    return {"engines": engine_count(program), "left_out": left_out, "seconds": seconds}


def main() -> None:
    name, out = sys.argv[1], Path(sys.argv[2])
    import_all()
    rows: dict[str, Any] = {}
    for how in ("static", "dynamic"):
        if how == "dynamic" and not ZOO[name].entry().dims:
            continue
        try:
            rows[how] = measure(ZOO[name], how)
        except Exception as err:
            trace = traceback.format_exc()[-6000:]
            rows[how] = {"failed": f"{type(err).__name__}: {err}", "trace": trace}
        out.write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
