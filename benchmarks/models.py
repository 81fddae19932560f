"""Every model of tests/zoo, compiled, run and compared: `make models`.

Each in a process of its own, static and with every natural size dynamic. Prints the table, writes
docs/models.md, and with --json also everything that was measured.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import textwrap
import time
from collections import Counter
from pathlib import Path
from typing import Any

from main import versions
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "models.md"
TIMEOUT_S = 1200
BAR = 0.85

Rows = dict[str, dict[str, Any]]  # "static" and "dynamic" of one model


def environment() -> dict[str, str]:
    places = [str(ROOT / "src"), str(ROOT / "tests")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(places),
        "PORTRT_CACHE_DIR": "off",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
    }


def listed() -> dict[str, str]:
    """Name -> kind of every model."""
    script = (
        "import json; from zoo.registry import ZOO, names; names();"
        "print(json.dumps({name: item.kind for name, item in ZOO.items()}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(name: str) -> Rows:
    with tempfile.TemporaryDirectory(prefix="portrt-zoo-") as folder:
        out = Path(folder) / "row.json"
        command = [sys.executable, "-m", "zoo.measure", name, str(out)]
        try:
            done = subprocess.run(
                command, env=environment(), capture_output=True, text=True, timeout=TIMEOUT_S,
                check=False,
            )  # fmt: skip
            ended = f"exit code {done.returncode}"
        except subprocess.TimeoutExpired:
            ended = f"not done in {TIMEOUT_S} s"
        rows: Rows = json.loads(out.read_text()) if out.exists() else {}
    if ended != "exit code 0":
        rows["process"] = {"failed": ended}
    return rows


def engines(row: dict[str, Any]) -> str:
    if "failed" in row:
        return "failed"
    left = f" + {len(row['left_out'])} nodes" if row["left_out"] else ""
    return f"{row['engines']}{left}"


def rtx(row: dict[str, Any]) -> str:
    found = row.get("tensorrt_rtx")
    if not found:
        return ""
    left = f" + {len(found['left_out'])} nodes" if found.get("left_out") else ""
    return f"{found['engines']}{left}" if found["engines"] else "no"


def rtx_row(rows: Rows) -> dict[str, Any]:
    """The program of a model that TensorRT-RTX was tried on."""
    return rows.get("dynamic") or rows.get("static") or {}


def error(row: dict[str, Any]) -> str:
    if "failed" in row:
        return ""
    worst = max(row["error"][1], row["error_in_new_process"][1])
    return f"{worst:.1e}" if row["same"] else f"WRONG {worst:.1e}"


def cells(name: str, rows: Rows) -> list[str]:
    static, dynamic = rows.get("static", {}), rows.get("dynamic")
    both = [row for row in (static, dynamic) if row and "failed" not in row]
    return [
        name,
        engines(static) if static else "failed",
        engines(dynamic) if dynamic else "-",
        rtx(rtx_row(rows)),
        " / ".join(filter(None, map(error, both))),
        " / ".join(f"{row['compile_s']:.0f}" for row in both),
        str(max((row["peak_mb"] for row in both), default="")),
    ]


HEAD = (
    "model", "static", "dynamic", "TensorRT-RTX", "error", "compile s", "peak MB",
)  # fmt: skip


def summary(found: dict[str, Rows]) -> dict[str, Any]:
    rows = [row for model in found.values() for row in model.values()]
    good = [row for row in rows if "failed" not in row]
    built = [
        row["tensorrt_rtx"]["engines"] for row in map(rtx_row, found.values()) if "engines" in row
    ]
    return {
        "models": len(found),
        "programs": len(rows),
        "one_engine": sum(row["engines"] == 1 for row in good),
        "one_engine_and_nothing_else": sum(
            row["engines"] == 1 and not row["left_out"] for row in good
        ),
        "eagers_numbers": sum(row["same"] for row in good),
        "failed": len(rows) - len(good),
        "tensorrt_rtx_one_engine": sum(count == 1 for count in built),
        "tensorrt_rtx_none": sum(count == 0 for count in built),
    }


def reasons(found: dict[str, Rows]) -> list[str]:
    """Why nodes stay in PyTorch, why sizes are fixed, and what the RTX builder refuses."""
    lines = []
    for name, rows in found.items():
        said: list[str] = []
        for row in rows.values():
            if "failed" in row:
                said.append(f"fails: {row['failed'].splitlines()[0][:300]}")
                continue
            if row["fixed"]:
                said.append(f"fixed {row['fixed']}")
            said += _left_out("", row["left_out"])
            built = row.get("tensorrt_rtx", {})
            said += _left_out("RTX: ", built.get("left_out", []))
            if built.get("says"):
                said.append("RTX: " + " ".join(built["says"].split())[:400])
        lines += [f"- `{name}`: {text}" for text in dict.fromkeys(said)]
    return lines


def _left_out(what: str, nodes: list[list[str]]) -> list[str]:
    counted = Counter((target, reason) for _, target, reason in nodes)
    return [
        f"{what}{count} x `{target}`: {' '.join(reason.split())[:200]}"
        for (target, reason), count in counted.items()
    ]


INTRODUCTION = """
Made by `make models`; do not edit. Tiny random configurations of the families that people use,
from transformers, diffusers and plain torch (`tests/zoo`), each compiled static and with every
natural size dynamic, saved, run in a new process, and compared with eager PyTorch on fresh
inputs, of other sizes within the ranges too.
"""
FIGURES = """
{models} models, {programs} programs: **{one_engine} ({share:.0%}) are exactly one onnxruntime
engine**, {one_engine_and_nothing_else} of them without a node in PyTorch; {eagers_numbers} give
eager's numbers, {failed} fail. TensorRT-RTX builds {tensorrt_rtx_one_engine} models as one
engine, and nothing of {tensorrt_rtx_none}.
"""
COLUMNS = """
Columns: engines per program, and nodes left in PyTorch; the same by TensorRT-RTX's builder for
the dynamic program, whose engines were not run; largest difference to eager over the largest
number of the output, and seconds of `compile` for onnxruntime, static / dynamic; peak memory of
the compiling process, libraries included.
"""


def paragraph(text: str) -> list[str]:
    return [textwrap.fill(" ".join(text.split()), 118, break_on_hyphens=False), ""]


def page(found: dict[str, Rows], kinds: dict[str, str]) -> str:
    counted = summary(found)
    counted["share"] = counted["one_engine"] / counted["programs"]
    lines = ["# Models", "", *paragraph(INTRODUCTION), *paragraph(FIGURES.format(**counted))]
    lines += paragraph(", ".join(f"{key} {value}" for key, value in versions().items()) + ".")
    lines += paragraph(COLUMNS)
    for kind in dict.fromkeys(kinds.values()):
        lines += [f"## {kind.capitalize()}", "", "| " + " | ".join(HEAD) + " |"]
        lines += ["| " + " | ".join(["---"] * len(HEAD)) + " |"]
        lines += [
            "| " + " | ".join(cells(name, rows)) + " |"
            for name, rows in found.items()
            if kinds[name] == kind
        ]
        lines.append("")
    return "\n".join([*lines, "## What stays in PyTorch, and why", "", *reasons(found), ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", help="some of them; then the page is not written")
    parser.add_argument("--json", type=Path, help="keep what was measured; what it has is taken")
    options = parser.parse_args()
    kinds = listed()
    names = options.models or list(kinds)
    kept: dict[str, Any] = {}
    if options.json and options.json.exists():
        kept = json.loads(options.json.read_text())["models"]
    console = Console(width=150)
    found: dict[str, Rows] = {}
    for name in names:
        started = time.perf_counter()
        found[name] = kept[name] if name in kept else measure(name)
        took = time.perf_counter() - started
        console.print(f"{took:5.0f} s", *cells(name, found[name]), sep="  ")
        if options.json:
            result = {"versions": versions(), "summary": summary(found), "models": found}
            options.json.write_text(json.dumps(result, indent=1) + "\n")
    table = Table(*HEAD)
    for name, rows in found.items():
        table.add_row(*cells(name, rows))
    console.print(table, summary(found))
    if not options.models:
        PAGE.write_text(page(found, kinds))
    counted = summary(found)
    wrong = counted["programs"] - counted["eagers_numbers"]
    return int(wrong > 0 or counted["one_engine"] < BAR * counted["programs"])


if __name__ == "__main__":
    sys.exit(main())
