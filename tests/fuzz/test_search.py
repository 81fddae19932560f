"""A few random graphs, and that the search misses no mismatch and reduces those it finds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from harness import run_script

from fuzz.check import Checker, Find, checker, narrowed
from fuzz.compare import Reference
from fuzz.graph import Graph, Ref, Step, plain
from fuzz.noise import Noisy
from fuzz.scripts import script
from fuzz.search import Search
from fuzz.undefined import UNDEFINED

NAN, INF = float("nan"), float("inf")
NUMBERS_PAGE = Path(__file__).parents[2] / "docs" / "numbers.md"


@pytest.fixture(scope="module")
def made() -> Iterator[Checker]:
    with checker() as one:
        yield one


def _graph(x: torch.Tensor, *steps: Step) -> Graph:
    count = sum(step.results for step in steps)
    return Graph((tuple(x.shape),), (), steps, tuple(range(1, count + 1)), {}, ((x,),))


def _step(target: str, *args: object, results: int = 1, **given: object) -> Step:
    return Step(target, args, given, results)


def test_random_graphs_match_eager(made: Checker, tmp_path: Path) -> None:
    search = Search(made, longest=12, folder=tmp_path)
    search.run(graphs=3, seed=1)
    assert {key: find.what for key, find in search.finds.items()} == {}
    assert made.counts.calls > 0
    assert made.counts.determined > made.counts.elements / 2


@pytest.mark.parametrize(
    ("got", "is_found"),
    [
        (torch.tensor([1.0, NAN, INF, 0.0]), False),
        (torch.tensor([1.0 + 1e-6, NAN, INF, 1e-39]), False),
        (torch.tensor([1.0 + 1e-3, NAN, INF, 0.0]), True),
        (torch.tensor([1.0, NAN, INF, 1e-30]), True),
        (torch.tensor([NAN, NAN, INF, 0.0]), True),
        (torch.tensor([1.0, 0.0, INF, 0.0]), True),
        (torch.tensor([1.0, NAN, -INF, 0.0]), True),
        (torch.tensor([1.0, NAN, 3e38, 0.0]), True),
        (torch.tensor([1.0, NAN, INF, 0.0], dtype=torch.float64), True),
        (torch.tensor([[1.0, NAN, INF, 0.0]]), True),
    ],
)
def test_what_is_a_mismatch(got: torch.Tensor, is_found: bool) -> None:
    x = torch.tensor([1.0, NAN, INF, 0.0])
    reference = Reference(_graph(x, _step("torch.abs", Ref(0))), (x,))
    assert bool(reference.difference(0, got)) == is_found


def test_sums_of_float64_that_depend_on_the_order_are_not_determined() -> None:
    x = torch.tensor([1.7e308, -1.7e308, 0.1], dtype=torch.float64)
    reference = Reference(_graph(x, _step("torch.sum", Ref(0))), (x,))
    assert not reference.difference(0, torch.tensor(0.0, dtype=torch.float64))


@pytest.mark.parametrize(
    ("step", "x", "wrong"),
    [
        (_step("F.gelu", Ref(0)), [-3.0, 1.0, NAN], [1e-4, 1e-3, 0.0]),
        (_step("F.gelu", Ref(0), approximate="tanh"), [-3.0, 9e37, INF], [1e-4, NAN, NAN]),
        (_step("F.elu", Ref(0)), [-1.0, 1e-9], [1e-4, 1e-12]),
        (_step("torch.sinh", Ref(0)), [87.0, 1e-3, INF], [INF, 1e-7, NAN]),
        (_step("torch.remainder", Ref(0), 0.1), [3e30, 7.0, NAN], [NAN, 1e-5, 0.0]),
        (_step("torch.clamp", Ref(0), 2.0), [INF, NAN], [-1e38, 0.0]),
        (_step("torch.sqrt", Ref(0)), [-1.0, INF], [0.0, NAN]),
        (_step("torch.prod", Ref(0), 0, keepdim=True), [2.0], [1e-3]),
    ],
    ids=str,
)
def test_wrong_elements_are_mismatches(step: Step, x: list[float], wrong: list[float]) -> None:
    """`wrong` is added to eager's results; it takes the place of what is not finite."""
    given = torch.tensor(x)
    reference = Reference(_graph(given, step), (given,))
    for position, error in enumerate(wrong):
        got = reference.eager[0].clone()
        finite = bool(got[position].isfinite()) and abs(error) < 1e30
        got[position] = got[position] + error if finite else error
        assert reference.difference(0, got), (position, got)


def test_a_value_that_overflows_in_eager_alone_is_no_mismatch() -> None:
    x = torch.tensor([1.52587890625e-05, 1.0]).half()
    graph = _graph(x, _step("torch.reciprocal", Ref(0)), _step("torch.mul", Ref(1), 0.0))
    reference = Reference(graph, (x,))
    assert reference.eager[1].isnan().tolist() == [True, False]
    assert not reference.difference(1, torch.zeros_like(x))
    assert reference.difference(1, torch.ones_like(x))
    assert reference.difference(1, torch.full_like(x, NAN))


def test_halves_may_be_rounded_after_some_steps_alone() -> None:
    """The logarithm of what is infinite in float16, and of what is not."""
    x = torch.tensor([20.0, 1.0]).half()
    steps = [
        _step("torch.exp", Ref(0)),
        _step("torch.log", Ref(1)),
        _step("torch.isinf", Ref(2)),
        _step("torch.eq", Ref(3), True),
    ]
    reference = Reference(_graph(x, *steps), (x,))
    assert reference.eager[3].tolist() == [True, False]
    assert not reference.difference(3, torch.tensor([False, False]))
    assert reference.difference(3, torch.tensor([True, True]))


def test_results_that_depend_on_a_rounding_are_not_determined() -> None:
    x = torch.tensor([1e4, 1e4, -2e4, 0.1, 1.0])
    graph = _graph(x, _step("torch.sum", Ref(0)), _step("torch.gt", Ref(1), float(x.sum())))
    reference = Reference(graph, (x,))
    assert not reference.difference(1, ~reference.eager[1])
    stable, total = reference.determined()
    assert (stable, total) == (1, 2)


@pytest.mark.parametrize(
    ("step", "x"),
    [
        (_step("torch.floor", Ref(0)), torch.tensor([2.0, 3.0])),
        (_step("torch.argmax", Ref(0)), torch.tensor([2.0, 3.0, 3.0])),
        (_step("torch.eq", Ref(0), 3), torch.tensor([2.0, 3.0])),
        (_step(".to", Ref(0), torch.int8), torch.tensor([2.5, -128.0, 127.9])),
        (_step("torch.sum", Ref(0)), torch.tensor([2.0, 3.0])),
        (_step("torch.matmul", Ref(0), torch.tensor([3e38, 5.0])), torch.tensor([3e38, -1.0])),
        (
            _step("F.scaled_dot_product_attention", Ref(0), *[torch.ones(1, 1, 2)] * 2),
            torch.tensor([[[3.0, -1.0]]]),
        ),
    ],
)
def test_exact_results_have_no_noise(step: Step, x: torch.Tensor) -> None:
    args = (x, *step.args[1:])
    wanted = plain(step, args, {})
    for seed in range(8):
        found = Noisy(seed)(step, args, {})
        assert torch.equal(found[0] if isinstance(found, list) else found, wanted)


@pytest.mark.parametrize(
    ("step", "args"),
    [
        (_step(".to", Ref(0), torch.int32), (torch.tensor([NAN, INF, 3e9, 1.0]), torch.int32)),
        (_step("torch.topk", Ref(0), 2, results=2), (torch.tensor([1.0, 1.0, 1.0, 0.0]), 2)),
        (
            _step("torch.matmul", Ref(0), Ref(1)),
            (torch.tensor([3e30, 3e30]), torch.tensor([3e30, -3e30])),
        ),
        (
            _step("torch.addmm", Ref(0), Ref(1), Ref(2), beta=2),
            (
                torch.tensor([-5e4]).half(),
                torch.tensor([[2.0]]).half(),
                torch.tensor([[4e4]]).half(),
            ),
        ),
        (
            _step("torch.addmm", Ref(0), Ref(1), Ref(2), beta=0, alpha=2),
            (torch.zeros(1), torch.tensor([[3e38, 1.0]]), torch.tensor([[0.0], [1.0]])),
        ),
        (
            _step("torch.var_mean", Ref(0), [0], results=2),
            (torch.tensor([1.0, INF, 2.0]), [0]),
        ),
        (
            _step("F.scaled_dot_product_attention", Ref(0), Ref(1), Ref(1)),
            (torch.tensor([[[1.0], [NAN]]]), torch.ones(1, 2, 1), torch.ones(1, 2, 1)),
        ),
        (
            _step("F.conv1d", Ref(0), Ref(1)),
            (torch.tensor([[[3e30, 3e30]]]), torch.tensor([[[3e30, -3e30]]])),
        ),
        (
            _step("torch.sub", Ref(0), Ref(1), alpha=2),
            (torch.tensor([3e38, 1.0]), torch.tensor([3e38, 1.0])),
        ),
        (
            _step("torch.addcmul", Ref(0), Ref(1), Ref(2)),
            (torch.tensor([-INF]), torch.tensor([3e30]), torch.tensor([3e30])),
        ),
        (_step("torch.prod", Ref(0)), (torch.tensor([3e30, 3e30, 1e-30]),)),
        (_step("torch.prod", Ref(0), 0, keepdim=True), (torch.tensor([INF, 0.5, 0.0]), 0)),
        (_step("F.gelu", Ref(0)), (torch.tensor([INF]),)),
        (_step("torch.cosh", Ref(0)), (torch.tensor([-89.0, 1.0]),)),
        (_step("special.rmod", Ref(0), 0.5), (torch.tensor([1e-39, 1.0]), 0.5)),
    ],
)
def test_undefined_values_vary(step: Step, args: tuple[object, ...]) -> None:
    assert step.target in UNDEFINED
    runs = []
    for seed in range(8):
        found = Noisy(seed)(step, args, step.kwargs)
        runs.append(str(found[-1] if isinstance(found, (list, tuple)) else found))
    assert len(set(runs)) > 1


def test_every_undefined_operator_has_a_row() -> None:
    """Casts have a row of their own."""
    page = NUMBERS_PAGE.read_text(encoding="utf-8")
    for target in UNDEFINED:
        name = {"special.rmod": "%"}.get(target, target.partition(".")[2])
        assert target.startswith(".") or f"`{name}" in page, target


class _Planted(Checker):
    """Finds a mismatch in each graph that has a step."""

    def check(self, graph: Graph) -> Find | None:
        found = any(step.target == "torch.abs" for step in graph.steps)
        return Find(graph, "planted") if found else None

    def values(self, graph: Graph, call: int) -> None:
        return None


def test_a_mismatch_is_reduced(tmp_path: Path) -> None:
    made = _Planted()
    names = ("abs", "exp", "add", "cat", "sum", "reshape", "where", "mul", "matmul", "sort")
    texts: list[str] = []
    search = Search(made, names, longest=15, folder=tmp_path, on_find=texts.append)
    search.run(graphs=6, seed=4)
    again = Search(made, names, longest=15)
    again.check_one(search.seeds[next(iter(search.finds))])
    made.close()
    assert texts == search.described()
    assert again.described() == texts[:1]
    (smallest, *_) = sorted(search.finds.values(), key=lambda find: len(find.graph.steps))
    assert len(smallest.graph.steps) <= 2
    assert list(tmp_path.glob("*abs.py"))


def test_the_step_at_fault_is_named(made: Checker, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.tensor([1.0, 2.0, 3.0])
    graph = _graph(x, _step("torch.neg", Ref(0)), _step("torch.exp", Ref(1)))
    wrong = [-x, torch.exp(-x) * 1.01]
    monkeypatch.setattr(made, "values", lambda graph, call: wrong)
    monkeypatch.setattr(made, "check", lambda graph: Find(graph, "planted"))
    found = narrowed(made, Find(graph, "values"))
    assert found is not None
    assert [step.target for step in found.graph.steps] == ["torch.exp"]
    assert torch.equal(found.graph.calls[0][0], -x)


def test_a_script_runs(tmp_path: Path) -> None:
    x = torch.tensor([[1.0, NAN], [-0.0, INF]])
    graph = _graph(x, _step("torch.add", Ref(0), 1), _step("special.getitem", Ref(1), (0, 1, None)))
    path = tmp_path / "find.py"
    path.write_text(script(Find(graph, "values")))
    assert run_script(path) == ""
