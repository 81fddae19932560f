"""Every entry of the zoo: engines, numbers on fresh inputs of other sizes, and a new process.

A plain `pytest` takes the entries marked quick: those that take a way of their own through portrt
(attention and masks, experts, a recurrent layer, complex numbers, scatter, branches, state), 20
programs in about 3 minutes on 2 cores. `pytest -m slow tests/zoo` takes the others, and `make
models` all, with times, memory and TensorRT-RTX, each in a process of its own.
"""

from __future__ import annotations

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


@pytest.mark.parametrize(("name", "how"), CASES)
def test_engines_give_eagers_numbers_here_and_in_a_new_process(
    name: str, how: str, tmp_path: Path
) -> None:
    entry, dynamic = ZOO[name].entry(), how == "dynamic"
    if dynamic and not entry.dims:
        pytest.skip("the model has no size that varies")
    calls = fresh_calls(entry, dynamic=dynamic)
    wanted = eager_results(entry, calls)
    program, left_out = compile_entry(entry, dynamic=dynamic)

    if not entry.why_not_one:
        assert engine_count(program) == 1, left_out
    (far,) = results_in_new_process([program], [calls], modules_needed(wanted), tmp_path)
    assert largest_error(far, wanted)[1] <= entry.tolerance
    assert largest_error(results(program.module(), calls), wanted)[1] <= entry.tolerance


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
