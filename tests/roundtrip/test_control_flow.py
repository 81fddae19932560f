"""torch.cond, while_loop, scan and map as one engine each, against eager PyTorch.

The oracle is the model itself, called as Python: its branches and loops are then plain functions.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import TESTS, assert_same, run_jobs
from torch import nn
from torch._higher_order_ops.map import map as torch_map
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops.while_loop import while_loop
from torch.export import Dim, ExportedProgram

import portrt
from portrt.errors import LowerError
from portrt.runtime.select import FallbackWarning

RUN = TESTS / "roundtrip" / "run.py"
N, T = Dim("n", min=1, max=12), Dim("t", min=1, max=9)
Calls = list[tuple[torch.Tensor, ...]]
ROWS = ({0: N},)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)


class BothBranches(Net):
    """Weights in the branches, one of them in both and outside; a view in one of them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        def yes(t: torch.Tensor) -> torch.Tensor:
            return self.first(t).relu()

        def no(t: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(t)).view(t.shape[0] * 2, 2).sigmoid().view(-1, 4)

        y = self.first(x).tanh()
        return self.second(torch.cond(x.sum() > 0, yes, no, (y,)))


class NestedBranches(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        def inner(t: torch.Tensor) -> torch.Tensor:
            return torch.cond(t.max() > 1, lambda u: self.second(u), lambda u: u - 1, (t,))

        y = self.first(x) * 2
        return torch.cond(x.sum() > 0, inner, lambda t: self.second(t) * 3, (y,)) + 1


class SeveralOutputs(nn.Module):
    """Of several dtypes and ranks; one of them nobody reads, one is made of no operand."""

    def forward(self, x: torch.Tensor, flag: torch.Tensor) -> Any:
        def yes(t: torch.Tensor) -> Any:
            return t * 2, t.argmax(1), t.sum(), t > 0, torch.zeros(3, dtype=torch.float64)

        def no(t: torch.Tensor) -> Any:
            return t + 1, t.argmin(1), t.mean(), t < 0, torch.ones(3, dtype=torch.float64)

        a, b, _, d, e = torch.cond(flag, yes, no, (x,))
        return {"a": a, "b": b, "d": d, "e": e * 2}


class ShapeCondition(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.cond(x.shape[0] > 4, lambda t: self.first(t), lambda t: t * 2, (x,))
        odd = (x.shape[0] * 3) % 2 == 1
        return torch.cond(odd, lambda t: self.second(t) + t.shape[0], lambda t: t.sin(), (y,))


class TwiceTheSameBranch(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        def yes(t: torch.Tensor) -> torch.Tensor:
            return self.first(t)

        def no(t: torch.Tensor) -> torch.Tensor:
            return t.cos()

        y = torch.cond(x.sum() > 0, yes, no, (x,))
        return torch.cond(y.sum() > 0, no, yes, (y,))


class UntouchedOperand(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, lambda t: t.clone(), lambda t: -t, (x,))


class ConstantsInBranches(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        def yes(t: torch.Tensor) -> torch.Tensor:
            return t + torch.tensor([1.0, 2.0, 3.0, 4.0]) + torch.arange(4)

        def inner(t: torch.Tensor) -> torch.Tensor:
            return torch.cond(t.max() > 1, yes, lambda u: u - torch.tensor([0.5]), (t,))

        def step(h: torch.Tensor, row: torch.Tensor) -> Any:
            return h + row * torch.tensor(0.25), h * 2

        y = torch.cond(x.sum() > 0, inner, lambda t: t * torch.full((4,), 0.5), (x,))
        return scan(step, torch.zeros(4), y)[1]


class Solver(Net):
    """Iterates until the step is small: 0, 1 or many times."""

    def forward(self, x: torch.Tensor, most: torch.Tensor) -> Any:
        def goes_on(i: torch.Tensor, y: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
            return (i < most) & (step > 0.01)

        def improve(i: torch.Tensor, y: torch.Tensor, step: torch.Tensor) -> Any:
            new = self.first(y).tanh() * 0.5
            return i + 1, new, (new - y).abs().max()

        start = torch.zeros((), dtype=torch.int64), x, x.abs().max() + 1
        count, y, step = while_loop(goes_on, improve, start)
        return count, self.second(y), step


class SameStateTwice(nn.Module):
    """One tensor is the start of two carried values, and an operand of both functions, too."""

    def forward(self, x: torch.Tensor) -> Any:
        def goes_on(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return (a + b - x).sum() < 100.0

        return while_loop(goes_on, lambda a, b: (a + 1, b * 2 + x.abs()), (x, x))


class BranchInLoop(Net):
    def forward(self, x: torch.Tensor) -> Any:
        def improve(i: torch.Tensor, y: torch.Tensor) -> Any:
            y = torch.cond(i % 2 == 0, lambda t: self.first(t), lambda t: t.relu() + 0.5, (y,))
            return i + 1, y

        start = torch.zeros((), dtype=torch.int32), x
        return while_loop(lambda i, y: (i < 5) & (y.sum() < 50), improve, start)


class LoopInBranch(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        def loop(t: torch.Tensor) -> torch.Tensor:
            step = torch.zeros((), dtype=torch.int64)
            return while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, self.first(y)), (step, t))[1]

        return torch.cond(x.sum() > 0, loop, lambda t: t * 2, (x,))


class Rnn(Net):
    """A recurrent cell over a sequence of any length, in either direction."""

    reverse = False

    def forward(self, x: torch.Tensor) -> Any:
        def step(h: torch.Tensor, row: torch.Tensor) -> Any:
            h = torch.tanh(self.first(row) + self.second(h))
            return h, h * 2

        return scan(step, torch.zeros(x.shape[0], 4), x, dim=1, reverse=self.reverse)


class ReverseRnn(Rnn):
    reverse = True


class SeveralStates(nn.Module):
    def forward(self, x: torch.Tensor, weights: torch.Tensor) -> Any:
        def step(state: Any, item: Any) -> Any:
            total, count = state
            row, weight = item
            total = total + row * weight
            return (total, count + 1), (total / (count + 1), row > 0)

        start = x[0] * 0, torch.zeros((), dtype=torch.int64)
        return scan(step, start, (x, weights))


class BranchInScan(Net):
    def forward(self, x: torch.Tensor) -> Any:
        def step(h: torch.Tensor, row: torch.Tensor) -> Any:
            h = torch.cond(
                h.sum() > 0, lambda a, b: self.first(a) - b, lambda a, b: a + b, (h, row)
            )
            return h, h.exp()

        return scan(step, torch.ones(4), x)


class Mapped(Net):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch_map(lambda row, other: self.first(row).relu() + other, x, y)


class HalfPrecision(Net):
    def forward(self, x: torch.Tensor) -> Any:
        def step(h: torch.Tensor, row: torch.Tensor) -> Any:
            h = torch.cond(row.sum() > 0, lambda a: self.first(a), lambda a: a * 0.5, (h + row,))
            return h, h + 1

        return scan(step, torch.ones(4, dtype=x.dtype), x)


@dataclass(frozen=True)
class Case:
    """A model, the arguments of its calls, and which of their sizes vary."""

    model: Callable[[], nn.Module]
    calls: Callable[[], Calls]
    dynamic_shapes: Any = None
    rtol: float = 1e-5


def rows(*shifts: float) -> Calls:
    """Random rows, as many as a dynamic size allows, around each of the numbers."""
    return [(torch.randn(n, 4) + s,) for n, s in zip((4, 1, 12, 5, 7), shifts, strict=False)]


def sequences(*sizes: tuple[int, int]) -> Calls:
    return [(torch.randn(batch, length, 4),) for batch, length in sizes]


CASES = {
    "both_branches": Case(BothBranches, lambda: rows(2, -2, 2, -2), ROWS),
    "nested_branches": Case(NestedBranches, lambda: rows(3, -3, 0.2, 0.01, 9), ROWS),
    "several_outputs": Case(
        SeveralOutputs,
        lambda: [(x, torch.tensor(bool(i % 2))) for i, (x,) in enumerate(rows(0, 0, 1, 1))],
        ({0: N}, None),
    ),
    "shape_condition": Case(ShapeCondition, lambda: rows(0, 0, 0, 0, 0), ROWS),
    "twice_the_same_branch": Case(TwiceTheSameBranch, lambda: rows(2, -2, 2, -2), ROWS),
    "untouched_operand": Case(UntouchedOperand, lambda: rows(2, -2, -2, 2), ROWS),
    "constants_in_branches": Case(ConstantsInBranches, lambda: rows(2, -2, 0.2, 0.1), ROWS),
    "solver": Case(
        Solver,
        lambda: [
            (x, torch.tensor(most))
            for (x,), most in zip(rows(0, 1, 2, 3), (3, 0, 1, 99), strict=True)
        ],
        ({0: N}, None),
    ),
    "same_state_twice": Case(SameStateTwice, lambda: rows(0, 50, 1, -1), ROWS),
    "branch_in_loop": Case(BranchInLoop, lambda: rows(0, 20, 1, -1), ROWS),
    "loop_in_branch": Case(LoopInBranch, lambda: rows(2, -2, -2, 2), ROWS),
    "rnn": Case(Rnn, lambda: sequences((3, 5), (1, 1), (12, 9)), ({0: N, 1: T},)),
    "reverse_rnn": Case(ReverseRnn, lambda: sequences((3, 5), (1, 1), (12, 9)), ({0: N, 1: T},)),
    "several_states": Case(
        SeveralStates,
        lambda: [(torch.randn(n, 2, 3), torch.randn(n)) for n in (5, 1, 12)],
        ({0: N}, {0: N}),
    ),
    "branch_in_scan": Case(BranchInScan, lambda: rows(0, -3, 0.5), ROWS),
    "map": Case(
        Mapped,
        lambda: [(torch.randn(n, t, 4), torch.randn(t, 4)) for n, t in ((3, 5), (1, 2), (12, 9))],
        ({0: N, 1: T}, {0: T}),
    ),
    "float16": Case(
        lambda: HalfPrecision().half(), lambda: [(x.half(),) for (x,) in rows(0, 1, -1)], ROWS, 1e-2
    ),
    "bfloat16": Case(
        lambda: HalfPrecision().bfloat16(),
        lambda: [(x.bfloat16(),) for (x,) in rows(0, 1, -1)],
        ROWS,
        3e-2,
    ),
}


@pytest.fixture(scope="module")
def programs() -> dict[str, tuple[ExportedProgram, Calls, list[Any]]]:
    """Name -> program, calls, and what the model itself gives; filled as tests ask for them."""
    return {}


def program_of(name: str, programs: dict[str, Any]) -> tuple[ExportedProgram, Calls, list[Any]]:
    if name not in programs:
        torch.manual_seed(0)
        case = CASES[name]
        model, calls = case.model().eval(), case.calls()
        program = portrt.compile(
            model,
            inputs=calls[0],
            dynamic_shapes=case.dynamic_shapes,
            engines="onnxruntime",
            min_block_size=1,
            output_format="exported_program",
        )
        programs[name] = program, calls, results(model, calls)
    return programs[name]


def results(module: Any, calls: Calls) -> list[Any]:
    """Result and arguments after each call, as roundtrip/run.py gives them."""
    with torch.no_grad():
        return [(module(*call), call, {}) for call in copy.deepcopy(calls)]


def assert_eagers(found: list[Any], wanted: list[Any], name: str) -> None:
    rtol = CASES[name].rtol
    assert_same(found, wanted, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("name", CASES)
def test_it_is_one_engine_with_eagers_numbers(name: str, programs: dict[str, Any]) -> None:
    program, calls, wanted = program_of(name, programs)

    called = [node.target for node in program.graph.nodes if node.op == "call_function"]
    assert called.count(torch.ops.portrt.execute_engine.default) == 1
    assert not [t for t in called if isinstance(t, torch._ops.HigherOrderOperator)]
    with portrt.runtime.policy(fallback="error"):
        assert_eagers(results(program.module(), calls), wanted, name)


@pytest.mark.parametrize("name", CASES)
def test_its_source_runs_in_pytorch(name: str, programs: dict[str, Any]) -> None:
    program, calls, wanted = program_of(name, programs)

    policy = portrt.runtime.policy(engines=(), fallback="eager")
    with policy, pytest.warns(FallbackWarning):
        assert_eagers(results(program.module(), calls), wanted, name)


def test_a_new_process_loads_and_runs_them(programs: dict[str, Any], tmp_path: Path) -> None:
    jobs = []
    for name in CASES:
        program, calls, _ = program_of(name, programs)
        torch.export.save(program, tmp_path / f"{name}.pt2")
        torch.save([(call, {}) for call in calls], tmp_path / f"{name}.calls")
        job = {"file": f"{name}.pt2", "inputs": f"{name}.calls", "outputs": f"{name}.found"}
        paths = {key: str(tmp_path / value) for key, value in job.items()}
        jobs.append({**paths, "how": "run", "needs": ()})
    assert not any(run_jobs(RUN, jobs, tmp_path))

    for name in CASES:
        found = torch.load(tmp_path / f"{name}.found", weights_only=False)
        assert_eagers(found, programs[name][2], name)


class MergedByExport(nn.Module):
    """Two states that start with one tensor: torch.export traces one state for both."""

    def __init__(self, read_again: bool) -> None:
        super().__init__()
        self.read_again = read_again

    def forward(self, x: torch.Tensor) -> Any:
        zeros = torch.zeros(4)

        def two(state: Any, row: torch.Tensor) -> Any:
            a, b = state
            return (a + row, b - row), a * b

        def one(state: torch.Tensor, row: torch.Tensor) -> Any:
            return state + row, state - zeros

        return scan(one, zeros, x) if self.read_again else scan(two, (zeros, zeros), x)


@pytest.mark.parametrize("read_again", [False, True])
def test_states_that_export_merges_are_refused(read_again: bool) -> None:
    with pytest.raises(LowerError, match=r"merges the two: at test_control_flow\.py:") as err:
        portrt.compile(MergedByExport(read_again), inputs=[torch.randn(3, 4)])
    assert ".clone()" in err.value.remedy
