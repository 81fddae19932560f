"""Every entry of the zoo: engines, numbers on fresh inputs of other sizes, and a new process.

A plain `pytest` takes the entries marked quick: those that take a way of their own through portrt
(attention and masks, experts, a recurrent layer, complex numbers, scatter, branches, state), 20
programs in about 3 minutes on 2 cores. `pytest -m slow tests/zoo` takes the others, and `make
models` all, with times, memory and TensorRT-RTX, each in a process of its own.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

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
from zoo.registry import ZOO, import_all

import_all()
pytestmark = [
    pytest.mark.filterwarnings("ignore:The tensor attribute.*assigned during export"),
    # torch.hann_window gives a view of a longer one, which torch.export.save remarks on
    pytest.mark.filterwarnings("ignore:No complete tensor found in the group"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # transformers' and diffusers' own
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:transformers"),
]
CASES = [
    pytest.param(name, how, id=f"{name}-{how}", marks=[] if item.quick else [pytest.mark.slow])
    for name, item in ZOO.items()
    for how in ("static", "dynamic")
]


@dataclass(frozen=True)
class Trip:
    """What is compared in a new process: the program, its calls, and eager's results."""

    program: Any
    calls: list[dict[str, Any]]
    wanted: list[Any]
    tolerance: float


@pytest.fixture(scope="module")
def trips() -> dict[str, Trip]:
    """Filled as the tests go: one new process runs all of them."""
    return {}


@pytest.mark.parametrize(("name", "how"), CASES)
def test_engines_give_eagers_numbers(name: str, how: str, trips: dict[str, Trip]) -> None:
    entry, dynamic = ZOO[name].entry(), how == "dynamic"
    if dynamic and not entry.dims:
        pytest.skip("the model has no size that varies")
    calls = fresh_calls(entry, dynamic=dynamic)
    wanted = eager_results(entry, calls)
    program, left_out = compile_entry(entry, dynamic=dynamic)
    trips[f"{name}-{how}"] = Trip(program, calls, wanted, entry.tolerance)

    if not entry.why_not_one:
        assert engine_count(program) == 1, left_out
    called = copy.deepcopy(program) if program.graph_signature.buffers_to_mutate else program
    assert largest_error(results(called.module(), calls), wanted)[1] <= entry.tolerance


def test_their_files_give_eagers_numbers_in_a_new_process(
    trips: dict[str, Trip], tmp_path: Path
) -> None:
    """Those of the tests before this one."""
    names, items = list(trips), list(trips.values())
    needs = modules_needed([item.wanted for item in items])
    programs = [item.program for item in items]
    found = results_in_new_process(programs, [item.calls for item in items], needs, tmp_path)
    errors = {
        name: largest_error(far, item.wanted)[1]
        for name, far, item in zip(names, found, items, strict=True)
    }
    assert {n: error for n, error in errors.items() if error > trips[n].tolerance} == {}


def test_the_comparison_sees_a_difference() -> None:
    import torch

    wanted: list[Any] = [{"a": torch.ones(3), "b": [torch.arange(3)]}]
    assert largest_error(wanted, wanted) == (0.0, 0.0)
    assert largest_error([{"a": torch.ones(3) * 1.5, "b": [torch.arange(3)]}], wanted)[1] == 0.5
    for other in (
        [{"a": torch.ones(3), "b": [torch.arange(3) + 1]}],
        [{"a": torch.ones(4), "b": [torch.arange(3)]}],
        [{"a": torch.ones(3).double(), "b": [torch.arange(3)]}],
        [{"a": torch.full((3,), float("nan")), "b": [torch.arange(3)]}],
        [{"a": torch.ones(3), "b": (torch.arange(3),)}],
    ):
        with pytest.raises(AssertionError):
            largest_error(other, wanted)
