"""Expression trees: their values, and everything that is no tree."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from effort import steps
from torch.export import Dim

from portrt.errors import PackageError
from portrt.format import size_expr
from portrt.graphs.symbols import SYMBOLIC

SIZES = {(0, 0): 7, (0, 1): 12, (1, 0): 5}
A, B, C = ["dim", 0, 0], ["dim", 0, 1], ["dim", 1, 0]

# A term takes some 10 to be checked.
MAX_STEPS = 30 * size_expr.MAX_TERMS

TABLE = [
    (3, 3),
    (["add", A, 1], 7 + 1),
    (["add", A, B, C], 7 + 12 + 5),
    (["mul", A, B, -1], -(7 * 12)),
    (["max", A, B, C], 12),
    (["min", A, B, C], 5),
    (["floordiv", B, C], 12 // 5),
    (["floordiv", ["mul", -1, A], 2], -7 // 2),
    (["mod", B, C], 12 % 5),
    (["mod", ["mul", -1, A], 4], -7 % 4),
    (["pow", A, 3], 7**3),
    (["pow", A, 0], 1),
    (["floor", ["truediv", A, 2]], math.floor(7 / 2)),
    (["ceil", ["truediv", A, 2]], math.ceil(7 / 2)),
    (["trunc", ["truediv", ["mul", -1, A], 2]], math.trunc(-7 / 2)),
    (["floor", ["mul", 1.5, A]], math.floor(1.5 * 7)),
    (["mul", -1, ["floordiv", ["mul", -1, A], 4]], math.ceil(7 / 4)),
]


def size(index: int, axis: int) -> int:
    return SIZES[index, axis]


@pytest.mark.parametrize(("tree", "value"), TABLE, ids=str)
def test_value_is_that_of_plain_python(tree: Any, value: int) -> None:
    size_expr.check(tree, [2, 1], "it")
    found = size_expr.evaluate(tree, size)
    assert type(found) is int
    assert found == value


def _random_tree(rng: random.Random, depth: int) -> tuple[Any, str]:
    """A tree, and the same as Python text."""
    if depth == 0 or rng.random() < 0.2:
        if rng.random() < 0.5:
            number = rng.randint(-9, 9)
            return number, f"({number})"
        index, axis = rng.choice(list(SIZES))
        return ["dim", index, axis], str(SIZES[index, axis])
    name = rng.choice(["add", "mul", "max", "min", "floordiv", "mod", "pow", "floor", "ceil"])
    left, left_text = _random_tree(rng, depth - 1)
    right, right_text = _random_tree(rng, depth - 1)
    if name in ("floor", "ceil"):
        return [name, ["truediv", left, 8]], f"math.{name}({left_text} / 8)"
    if name == "pow":
        return [name, left, 2], f"({left_text}) ** 2"
    if name in ("floordiv", "mod"):
        sign = "//" if name == "floordiv" else "%"
        return [name, left, 3], f"(({left_text}) {sign} 3)"
    if name in ("max", "min"):
        return [name, left, right], f"{name}({left_text}, {right_text})"
    return [name, left, right], f"(({left_text}) {'+' if name == 'add' else '*'} ({right_text}))"


@pytest.mark.parametrize("seed", range(200))
def test_random_tree_has_the_value_of_its_python_text(seed: int) -> None:
    tree, text = _random_tree(random.Random(seed), 3)
    size_expr.check(tree, [2, 1], "it")
    assert size_expr.evaluate(tree, size) == eval(text, {"math": math})


def _deep(levels: int) -> Any:
    tree: Any = 1
    for _ in range(levels):
        tree = ["floor", tree]
    return tree


BAD = {
    "bool": True,
    "bool inside": ["add", A, False],
    "bool exponent": ["pow", A, True],
    "null": None,
    "text": "add",
    "code": ["__import__('os').abort()", 1],
    "mapping": {"add": [1, 2]},
    "tuple": ("add", 1, 2),
    "NaN": math.nan,
    "NaN inside": ["floor", math.nan],
    "infinity": math.inf,
    "infinity inside": ["floor", -math.inf],
    "one above the limit": size_expr.MAX_SIZE + 1,
    "one below the limit": -size_expr.MAX_SIZE - 1,
    "more than a float holds": 10**400,
    "more than Python prints": 10**5000,
    "empty": [],
    "no operator": [1, 2],
    "operator is a list": [["add"], 1, 2],
    "unknown operator": ["exec", 1],
    "one argument of two": ["add", 1],
    "no argument": ["floor"],
    "two arguments of one": ["floor", 1.5, 2],
    "three arguments of two": ["floordiv", 6, 2, 2],
    "exponent is an expression": ["pow", 2, A],
    "exponent is negative": ["pow", 2, -1],
    "exponent is a fraction": ["pow", 4, 0.5],
    "exponent is large": ["pow", 2, size_expr.MAX_EXPONENT + 1],
    "fraction": 1.5,
    "fraction by a factor": ["mul", 0.5, A],
    "fraction by a division": ["truediv", A, 2],
    "fraction in a maximum": ["max", A, ["truediv", A, 2]],
    "no such input": ["dim", 2, 0],
    "negative input": ["dim", -1, 0],
    "no such axis": ["dim", 0, 2],
    "negative axis": ["dim", 0, -1],
    "dimension without axis": ["dim", 0],
    "dimension with more": ["dim", 0, 0, 0],
    "dimension by bool": ["dim", False, 0],
    "dimension by float": ["dim", 0.0, 0],
    "dimension by list": ["dim", [0], 0],
    "dimension by a deep list": ["dim", _deep(900), 0],
    "operator is a deep list": [_deep(900), 1],
    "deep": _deep(size_expr.MAX_DEPTH + 1),
    "very deep": _deep(100_000),
    "long": ["add", *[1] * size_expr.MAX_TERMS],
    "very long": ["add", *[1] * 2_000_000],
}


@pytest.mark.parametrize("name", BAD)
def test_malformed_tree_is_refused(name: str) -> None:
    """In bounded time: of a tree of any size, no more is looked at than a tree may have."""
    with (
        pytest.raises(PackageError, match=r"^size 3 of it ") as caught,
        steps(MAX_STEPS),
    ):
        size_expr.check(BAD[name], [2, 1], "size 3 of it")
    assert caught.value.expected
    assert caught.value.remedy
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "tree", [_deep(size_expr.MAX_DEPTH), ["add", *[1] * (size_expr.MAX_TERMS - 1)]]
)
def test_tree_at_the_limits_is_taken(tree: Any) -> None:
    size_expr.check(tree, [], "it")


def test_tree_as_json_is_the_same_tree() -> None:
    for tree, value in TABLE:
        assert size_expr.evaluate(json.loads(json.dumps(tree)), size) == value


def _tower(levels: int) -> Any:
    """A checked tree whose value would fill the memory."""
    tree: Any = ["add", A, 3]
    for _ in range(levels):
        tree = ["pow", tree, size_expr.MAX_EXPONENT]
    return tree


@pytest.mark.parametrize(
    "tree",
    [
        _tower(40),
        ["mul", *[size_expr.MAX_SIZE] * 4000],
        ["floor", ["pow", 1e18, 16]],
        ["floor", ["pow", ["pow", 1e18, 16], 16]],
        ["floordiv", 1, ["add", A, -7]],
        ["mod", 1, ["add", A, -7]],
        ["floor", ["truediv", 1, ["add", A, -7]]],
    ],
    ids=["tower", "product", "float", "float overflow", "floordiv", "mod", "truediv"],
)
def test_value_beyond_bounds_is_an_arithmetic_error_at_once(tree: Any) -> None:
    """No step is taken with what is beyond them."""

    def held(function: Callable[..., Any]) -> Callable[..., Any]:
        def step(*values: Any) -> Any:
            assert all(-size_expr.MAX_SIZE <= value <= size_expr.MAX_SIZE for value in values)
            return function(*values)

        return step

    size_expr.check(tree, [2, 1], "it")
    meaning = {name: held(function) for name, function in size_expr.NUMBERS.items()}
    with pytest.raises(ArithmeticError), steps(MAX_STEPS):
        size_expr.evaluate(tree, size, meaning)
    with pytest.raises(ArithmeticError):
        size_expr.evaluate(tree, size)


@pytest.mark.parametrize(("tree", "value"), TABLE, ids=str)
def test_symbolic_value_at_a_hint_is_the_numeric_value(tree: Any, value: int) -> None:
    """The tree is put into a graph over symbols, and the graph is run on numbers."""

    class Sized(torch.nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            found = size_expr.evaluate(tree, lambda i, a: (x, y)[i].shape[a], SYMBOLIC)
            return torch.zeros(1, dtype=torch.int64) + found

    # Exported with other sizes, so that a size that was taken for a constant would show.
    dims = ({0: Dim("a", max=64), 1: Dim("b", max=64)}, {0: Dim("c", max=64)})
    program = torch.export.export(
        Sized(), (torch.zeros(9, 10), torch.zeros(11)), dynamic_shapes=dims
    )
    assert int(program.module()(torch.zeros(7, 12), torch.zeros(5))) == value
