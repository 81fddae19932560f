"""bench: latency and throughput of a file, of its source in eager PyTorch, and of a bare session.

Each candidate runs in its own process, in turn, several times: its memory, threads and caches do
not affect the others, and a slow period of the machine affects all of them.
"""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from portrt import errors
from portrt.errors import EngineError, PortrtError, SettingsError
from portrt.progress import ShowStep
from portrt.runtime.devices import device_by_name
from portrt.runtime.select import EAGER

BARE = "bare onnxruntime"
_MAX_SECONDS = 3600


def bench(
    job: Mapping[str, Any], rounds: int, show: ShowStep = lambda _phase, _step, _steps: None
) -> dict[str, Any]:
    """Measure a file beside its candidates.

    Args:
        job: "path", "inputs" (files, as `portrt run` takes them), "shapes" and "seed" (of random
            inputs), "engine" (backend that every block must run as, or None), "device", "trust",
            "threads" (concurrent callers for the throughput) and "seconds" (per measurement).
        rounds: Number of processes for each candidate.
        show: Called before each process: which candidate, how many have ended, and of how many.

    Returns:
        Plain values for `json.dumps`: seconds, and calls per second.

    Raises:
        SettingsError: Fewer than one thread or round, or a time of 0 or above one hour, or
            there is no such device here.
        PortrtError: The program cannot run; the error is that of its call.
    """
    threads, seconds = job["threads"], job["seconds"]
    if threads < 1 or rounds < 1 or not 0 < seconds <= _MAX_SECONDS:
        raise SettingsError(
            f"threads is {threads}, rounds is {rounds} and seconds is {seconds}",
            f"at least one thread and one round, and seconds above 0, up to {_MAX_SECONDS}",
            "give values in these ranges",
        )
    device = device_by_name(job["device"])
    jobs = {"program": {**job, "bare": False}}
    if job["engine"] != EAGER:
        jobs[EAGER] = {**job, "bare": False, "engine": EAGER}
    if job["device"] == "cpu" and job["engine"] in (None, "onnxruntime"):
        jobs[BARE] = {**job, "bare": True}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in jobs}
    for number in range(rounds):
        for index, (name, one) in enumerate(jobs.items()):
            show(name, number * len(jobs) + index, rounds * len(jobs))
            if not found[name] or "error" not in found[name][-1]:
                found[name].append(_run(one))
            if "error" in found["program"][-1]:
                raise _error(found["program"][-1]["error"])
    own = f"torch {torch.__version__}, {torch.get_num_threads()} threads within a call"
    where = (
        torch.cuda.get_device_name(job["device"]) if device.type == "cuda" else platform.machine()
    )
    return {
        "file": Path(job["path"]).name,
        "device": job["device"],
        "machine": f"{where}, {own}",
        "threads": threads,
        "rounds": rounds,
        "contenders": {name: _summary(answers) for name, answers in found.items()},
    }


def _run(job: Mapping[str, Any]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "portrt.files.bench.candidate"],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        parts = (f"the process crashed: {last}", "figures", "run the file with `portrt run`")
        return {"error": [EngineError.__name__, *parts]}
    return answer


def _error(fields: Sequence[str]) -> PortrtError:
    """Rebuild the error that the other process raised."""
    kind, *parts = fields
    found: type[PortrtError] = getattr(errors, kind, EngineError)
    return found(*parts)


def _summary(answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Summarize the rounds: each figure is the median over the rounds' figures."""
    if "error" in answers[-1]:
        return {"reason": answers[-1]["error"][1]}
    rounds = [sorted(answer["latencies"]) for answer in answers]

    def percentile(share: float) -> Any:
        return statistics.median(lat[min(int(share * len(lat)), len(lat) - 1)] for lat in rounds)

    return {
        "engines": answers[-1]["engines"],
        "calls": sum(map(len, rounds)),
        "median_seconds": statistics.median(map(statistics.median, rounds)),
        "p90_seconds": percentile(0.9),
        "p99_seconds": percentile(0.99),
        "calls_per_second": statistics.median(answer["calls_per_second"] for answer in answers),
    }
