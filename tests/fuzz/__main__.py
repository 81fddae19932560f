"""python -m fuzz --graphs 3000 --minutes 60 --jobs 2: prints counts, exit status 1 with finds."""

from __future__ import annotations

import argparse
import dataclasses
import json
import secrets
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from fuzz.check import Counts, checker
from fuzz.operators import OPERATORS
from fuzz.search import LONGEST, Search


def main() -> int:
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--graphs", type=int, default=1_000_000, help="graphs to check")
    parser.add_argument("--minutes", type=float, default=60.0, help="time after which it stops")
    parser.add_argument("--seed", type=int, default=None, help="a new one by default")
    parser.add_argument("--graph", type=int, help="check the one graph that a find names, alone")
    parser.add_argument("--jobs", type=int, default=1, help="processes that draw graphs")
    parser.add_argument("--longest", type=int, default=LONGEST, help="most steps of a graph")
    parser.add_argument("--only", default="", help="operators to draw from, comma separated")
    parser.add_argument("--without", default="", help="operators to leave out, comma separated")
    parser.add_argument("--out", type=Path, default=Path("fuzz-finds"), help="for the scripts")
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    seed = secrets.randbelow(1_000_000) if options.seed is None else options.seed
    started = time.monotonic()
    print(f"seed {seed}", flush=True)
    is_alone = options.jobs == 1 or options.graph is not None
    result = _one(options, seed) if is_alone else _several(options, seed)
    if options.result is not None:
        options.result.write_text(json.dumps(result))
    else:
        _report(result, time.monotonic() - started)
    return int(bool(result["finds"]))


def _one(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    only, without = (set(filter(None, text.split(","))) for text in (options.only, options.without))
    names = [name for name in OPERATORS if (not only or name in only) and name not in without]
    with checker() as made:
        search = Search(made, names, options.longest, options.out, partial(print, flush=True))
        if options.graph is not None:
            search.check_one(options.graph)
        else:
            search.run(options.graphs, seed, options.minutes * 60)
        return {
            "counts": _plain(made.counts),
            "finds": search.described(),
            "repeated": search.repeated,
        }


def _plain(counts: Counts) -> dict[str, Any]:
    values = {field.name: getattr(counts, field.name) for field in dataclasses.fields(counts)}
    return {name: dict(v) if isinstance(v, Counter) else v for name, v in values.items()}


def _several(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """The same in several processes, each with a seed and a folder of its own."""
    options.out.mkdir(parents=True, exist_ok=True)
    running = []
    for job in range(options.jobs):
        result = options.out / f"result{job}.json"
        result.unlink(missing_ok=True)
        command = [
            *(sys.executable, "-m", "fuzz", "--seed", str(seed + 1_000_000 * job)),
            *("--graphs", str(-(-options.graphs // options.jobs))),
            *("--minutes", str(options.minutes), "--longest", str(options.longest)),
            *("--only", options.only, "--without", options.without),
            *("--out", str(options.out / f"job{job}"), "--result", str(result)),
        ]
        running.append((subprocess.Popen(command), result))
    total: dict[str, Any] = {"counts": {}, "finds": [], "repeated": 0}
    for process, result in running:
        process.wait()
        if not result.exists():
            total["finds"].append(f"a job ended with {process.returncode}")
            continue
        made = json.loads(result.read_text())
        result.unlink()
        total["finds"] += made["finds"]
        total["repeated"] += made["repeated"]
        for name, value in made["counts"].items():
            before = total["counts"].get(name, Counter() if isinstance(value, dict) else 0)
            total["counts"][name] = before + (Counter(value) if isinstance(value, dict) else value)
    return total


def _report(result: dict[str, Any], seconds: float) -> None:
    counts = Counts(**result["counts"])
    share = counts.determined / max(counts.elements, 1)
    print(
        f"{counts.graphs} graphs with {counts.steps} steps, {counts.calls} calls, "
        f"{counts.without_engine} without an engine, in {seconds:.0f} s; "
        f"{share:.1%} of {counts.elements} elements have a determined value"
    )
    left = Counter(counts.left)
    print(f"{sum(left.values())} nodes in PyTorch: {_most(left)}")
    skipped = Counter(counts.skipped)
    print(f"{sum(skipped.values())} skipped:")
    for reason, count in skipped.most_common():
        print(f"  {count} {reason}")
    print(f"{len(result['finds'])} mismatches, and {result['repeated']} repeated:")
    for text in result["finds"]:
        print(f"  {text}")


def _most(counted: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counted.most_common(12))


if __name__ == "__main__":
    sys.exit(main())
