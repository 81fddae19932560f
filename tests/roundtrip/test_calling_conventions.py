"""What models take and give beside tensors: containers of one's own, None, numbers and strings."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from containers import Batch, Point
from harness import TESTS, assert_same, run_jobs
from torch import nn
from torch.export import Dim

import portrt
from portrt.errors import InputError, SaveError

RUN = TESTS / "roundtrip" / "run.py"
N = Dim("n", min=1, max=9)


@dataclass(frozen=True)
class Case:
    """A model and its calls, each (args, kwargs); the first is the example."""

    name: str
    function: Callable[..., Any]
    calls: Callable[[], list[tuple[tuple[Any, ...], dict[str, Any]]]]
    dynamic_shapes: Any = None
    needs: tuple[str, ...] = field(default=(), kw_only=True)

    def __str__(self) -> str:
        return self.name

    def model(self) -> nn.Module:
        return type("Model", (nn.Module,), {"forward": staticmethod(self.function)})().eval()


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(shape)


def numbers_and_strings(
    x: torch.Tensor, mode: str, times: int, scale: float, flag: bool, *, note: Any = None
) -> Any:
    y = x.relu() if mode == "relu" else x.exp()
    y = (y + times) * scale
    return (y, times, scale) if flag else (y, None if note is None else y * 2)


def of_points(points: list[Point]) -> Any:
    one, other = points
    assert other.y is None
    return Point(one.x + other.x, None), {"sum": Point(one.y.sum(), one.x * 2)}


def of_batch(batch: Batch, *, other: dict[str, Any]) -> Any:
    rows = (batch.rows * batch.names["scale"]).relu() * batch.weight
    return Batch(rows, {"row": rows.sum(0) + other["shift"]}, batch.weight)


def of_layers(x: torch.Tensor, caches: list[tuple[torch.Tensor, torch.Tensor]]) -> Any:
    made = []
    for key, value in caches:
        key, value = torch.cat([key, x]), torch.cat([value, x * 2])
        x = ((x @ key.T).softmax(-1) @ value).tanh()
        made.append((key, value))
    return x, made


def of_ordered(tree: OrderedDict[str, Any]) -> Any:
    return OrderedDict(b=tree["b"][1] * 2, a=tree["a"] + 1, none=None, nested=[(), {}, [None]])


def keywords(*, second: torch.Tensor, first: torch.Tensor, **rest: torch.Tensor) -> Any:
    return first.exp() - second, rest["third"].relu() * 2


def layers(n: int) -> tuple[Any, ...]:
    return randn(1, 4), [(randn(n, 4), randn(n, 4)) for _ in range(2)]


CASES = [
    Case("numbers and strings", numbers_and_strings,
         lambda: [((randn(3), "relu", 2, 0.5, True), {"note": None}) for _ in range(2)]),
    Case("other numbers and strings", numbers_and_strings,
         lambda: [((randn(3), "exp", -1, 3.0, False), {"note": "a note"})]),
    Case("named tuples", of_points,
         lambda: [(([Point(randn(n, 2), randn(n)), Point(randn(n, 2), None)],), {})
                  for n in (3, 1, 9)],
         ([Point({0: N}, {0: N}), Point({0: N}, None)],), needs=("containers",)),
    Case("dataclasses", of_batch,
         lambda: [((Batch(randn(n, 2), {"scale": randn(2)}, 0.5),), {"other": {"shift": randn(1)}})
                  for n in (3, 1, 9)],
         {"batch": [{0: N}, {"scale": None}, None], "other": {"shift": None}},
         needs=("containers",)),
    Case("caches of layers", of_layers, lambda: [(layers(n), {}) for n in (3, 1, 9)],
         (None, [({0: N}, {0: N})] * 2)),
    Case("ordered dicts", of_ordered,
         lambda: [((OrderedDict(b=[randn(2), randn(2)], a=randn(1)),), {}) for _ in range(2)]),
    Case("keywords", keywords,
         lambda: [((), {"first": randn(2), "second": randn(2), "third": randn(3)}),
                  ((), {"third": randn(3), "second": randn(2), "first": randn(2)})]),
]  # fmt: skip


def compiled(case: Case, **options: Any) -> Any:
    args, kwargs = case.calls()[0]
    return portrt.compile(
        case.model(),
        arg_inputs=args,
        kwarg_inputs=kwargs,
        dynamic_shapes=case.dynamic_shapes,
        engines="onnxruntime",
        min_block_size=1,
        **options,
    )


def results(module: Any, calls: Any) -> list[Any]:
    """As roundtrip/run.py gives them: the result, and the arguments after it."""
    with torch.no_grad():
        return [(module(*args, **kwargs), args, kwargs) for args, kwargs in copy.deepcopy(calls)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_calls_are_those_of_the_model_here(case: Case) -> None:
    calls = case.calls()

    assert_same(results(compiled(case), calls), results(case.model(), calls), 1e-5, 1e-5)


def test_calls_are_those_of_the_model_in_a_new_process(tmp_path: Path) -> None:
    jobs = []
    for index, case in enumerate(CASES):
        paths = {name: str(tmp_path / f"{index}.{name}") for name in ("inputs", "outputs")}
        file = tmp_path / f"{index}.pt2"
        portrt.save(compiled(case, output_format="exported_program"), file)
        torch.save(case.calls(), paths["inputs"])
        jobs.append({"file": str(file), "how": "run", "needs": case.needs, **paths})
    for case, job, error in zip(CASES, jobs, run_jobs(RUN, jobs, tmp_path), strict=True):
        assert not error, (case.name, error)
        calls = torch.load(job["inputs"], weights_only=False)
        found = torch.load(job["outputs"], weights_only=False)
        assert_same(found, results(case.model(), calls), 1e-5, 1e-5)


def test_a_string_as_a_result_is_refused_before_a_file_is_written(tmp_path: Path) -> None:
    """torch.export.save writes such a program, and torch.export.load does not read it."""
    case = Case("a string", lambda x: (x.relu(), "relu"), lambda: [((randn(3),), {})])
    program = compiled(case, output_format="exported_program")
    assert program.module()(randn(3))[1] == "relu"
    with pytest.raises(SaveError, match="returns the string 'relu'"):
        portrt.save(program, tmp_path / "model.pt2")
    assert list(tmp_path.iterdir()) == []
    torch.export.save(program, tmp_path / "torch.pt2")
    with pytest.raises(RuntimeError, match="deserializing"):  # when torch mends it, save may, too
        torch.export.load(tmp_path / "torch.pt2")


@pytest.mark.parametrize(
    "change", [{1: "exp"}, {2: 3}, {3: 0.25}, {4: False}], ids=["string", "int", "float", "bool"]
)
def test_another_number_or_string_than_was_compiled_is_refused(change: dict[int, Any]) -> None:
    module = compiled(CASES[0])
    args = [randn(3), "relu", 2, 0.5, True]
    for place, value in change.items():
        args[place] = value
    with pytest.raises(InputError, match=repr(value)):
        module(*args, note=None)
