"""Times sessions of one block against each other, at the sizes of its optimization profiles.

Candidates are called in turn, so that what else the machine does hits all of them; figures are
medians, and the spread is the distance of the quartiles over the median.
"""

from __future__ import annotations

import logging
import math
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import torch

from portrt.engines.base import Session
from portrt.errors import PortrtError
from portrt.format.dimensions import Dimension
from portrt.format.signature import Signature
from portrt.runtime.input_check import output_shapes
from portrt.runtime.random_inputs import random_block_inputs

logger = logging.getLogger(__name__)

# As `arguments.GOALS`.
Goal = Literal["latency", "throughput", "size"]

_WARM_UP = 3
_MIN_ROUNDS, _MAX_ROUNDS = 5, 50
# A sample is at least that long: shorter ones are below the resolution of what a machine does.
_SAMPLE_S = 2e-3
_CALLERS = 4  # threads that call at once, for the throughput


@dataclass(frozen=True)
class Figure:
    """The time of one session at one combination of sizes.

    Attributes:
        shapes: Shape of each input of the block.
        seconds: Median of a call; for the throughput the time over the number of calls.
        spread: Distance of the quartiles over the median.
    """

    shapes: tuple[tuple[int, ...], ...]
    seconds: float
    spread: float

    def to_json(self) -> dict[str, Any]:
        """Return its entry in a manifest."""
        seconds = float(f"{self.seconds:.4g}")
        shapes = [list(shape) for shape in self.shapes]
        return {"shapes": shapes, "seconds": seconds, "spread": round(self.spread, 3)}


def conditions(goal: Goal) -> dict[str, Any]:
    """Return what figures of this process depend on, for a manifest."""
    threads = torch.get_num_threads()
    return {"goal": goal, "threads": threads, "cpu": cpu_name(), "os": platform.system().lower()}


def cpu_name() -> str:
    """Return the name of this machine's CPU, or that of its architecture."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123
            names = (line.partition(":")[2] for line in file if line.startswith("model name"))
            return next(names, platform.machine()).strip()
    except OSError:
        return platform.processor() or platform.machine()


def profile_count(signature: Signature) -> int:
    """Return the number of optimization profiles of a block; 1 if it has only ranges."""
    sizes = [size for spec in signature.inputs for size in spec.shape]
    return max([len(s.profiles) for s in sizes if isinstance(s, Dimension)] or [0]) or 1


def measure(
    signature: Signature,
    sessions: Mapping[str, Session],
    goal: Goal,
    *,
    device: torch.device,
    budget_s: float,
) -> dict[str, list[Figure]]:
    """Time sessions of one block in turn.

    Args:
        signature: Inputs of the block.
        sessions: Label -> session.
        goal: "throughput" for several calls at once; else one call after the other.
        device: Device of the inputs.
        budget_s: Seconds for all of it; at least five rounds are made.

    Returns:
        Label -> a figure for each profile, of those that run at all of them.
    """
    count = profile_count(signature)
    found: dict[str, list[Figure]] = {label: [] for label in sessions}
    for profile in range(count):
        inputs = random_block_inputs(signature, 0, device, profile=profile)
        shapes = output_shapes(signature, inputs)
        calls: dict[str, Callable[[], Any]] = {}
        for label in found:
            call = _call_of(sessions[label], inputs, shapes)
            try:
                for _ in range(_WARM_UP):
                    call()
            except PortrtError as err:
                logger.warning("%s is not timed: %s", label, err.happened)
                continue
            calls[label] = call
        found = {label: figures for label, figures in found.items() if label in calls}
        taken = tuple(tuple(tensor.shape) for tensor in inputs)
        for label, samples in _in_turn(calls, goal, budget_s / count).items():
            found[label].append(Figure(taken, *_summary(samples)))
    return found


def _call_of(
    session: Session, inputs: Sequence[torch.Tensor], shapes: Sequence[tuple[int, ...]]
) -> Callable[[], Any]:
    wait = torch.cuda.synchronize if inputs and inputs[0].is_cuda else None

    def call() -> None:
        with torch.no_grad():
            session.run(inputs, shapes)
            if wait is not None:
                wait()

    return call


def _in_turn(
    calls: Mapping[str, Callable[[], Any]], goal: Goal, budget_s: float
) -> dict[str, list[float]]:
    several = goal == "throughput"
    repeats = {}
    for label, call in calls.items():
        started = time.perf_counter()
        call()
        repeats[label] = max(1, math.ceil(_SAMPLE_S / max(time.perf_counter() - started, 1e-7)))
    found: dict[str, list[float]] = {label: [] for label in calls}
    deadline = time.perf_counter() + budget_s
    with ThreadPoolExecutor(_CALLERS if several else 1) as pool:
        for done in range(_MAX_ROUNDS):
            if done >= _MIN_ROUNDS and time.perf_counter() > deadline:
                break
            for label, call in calls.items():
                count = repeats[label]
                started = time.perf_counter()
                if several:
                    list(pool.map(_repeated, [(call, count)] * _CALLERS))
                    count *= _CALLERS
                else:
                    _repeated((call, count))
                found[label].append((time.perf_counter() - started) / count)
    return found


def _repeated(work: tuple[Callable[[], Any], int]) -> None:
    call, count = work
    for _ in range(count):
        call()


def _summary(samples: Sequence[float]) -> tuple[float, float]:
    low, middle, high = statistics.quantiles(samples, n=4)
    return middle, (high - low) / middle


def ratios(figures: Mapping[str, Sequence[Figure]]) -> dict[str, float]:
    """Return label -> geometric mean over the sizes of its time over the best one's.

    Args:
        figures: As `measure` returns them.
    """
    if not figures:
        return {}
    sizes = range(len(next(iter(figures.values()))))
    best = [min(own[size].seconds for own in figures.values()) for size in sizes]
    return {
        label: statistics.geometric_mean([own[size].seconds / best[size] for size in sizes])
        for label, own in figures.items()
    }


def table(block: str, figures: Mapping[str, Sequence[Figure]], goal: Goal) -> str:
    """Describe figures in lines of text, fastest first, with ratios to the best.

    Args:
        block: Name of the block.
        figures: As `measure` returns them.
        goal: What was measured.
    """
    mean = ratios(figures)
    lines = [f"{block}, {goal}, {torch.get_num_threads()} threads, {cpu_name()}:"]
    best = [min(own[i].seconds for own in figures.values()) for i in range(_length(figures))]
    for label in sorted(mean, key=mean.__getitem__):
        cells = [
            f"{figure.seconds * 1e3:.3f} ms ({figure.seconds / lowest:.2f}, "
            f"spread {figure.spread:.0%})"
            for figure, lowest in zip(figures[label], best, strict=True)
        ]
        lines.append(f"  {label:<24} {mean[label]:.2f}  {'  '.join(cells)}")
    return "\n".join(lines)


def _length(figures: Mapping[str, Sequence[Figure]]) -> int:
    return len(next(iter(figures.values()), ()))
