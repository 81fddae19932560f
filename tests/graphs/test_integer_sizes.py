"""Integer forms of sizes with fractions, against Python's own float arithmetic."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import pytest

from portrt.format import size_expr
from portrt.graphs.integer_sizes import in_integers

N, K = ["dim", 0, 0], ["dim", 0, 1]


def up_to(high: int | None) -> Callable[[int, int], tuple[int, int | None]]:
    return lambda *_: (0, high)


def has_fractions(tree: Any) -> bool:
    if isinstance(tree, list):
        return tree[0] == "truediv" or any(map(has_fractions, tree[1:]))
    return isinstance(tree, float)


def value(tree: Any, n: int, k: int = 5) -> Any:
    return size_expr.evaluate(tree, lambda _, axis: (n, k)[axis])


# What Python computes, the tree, and whether there is a form without fractions for sizes to 300.
CASES: dict[str, tuple[Callable[[int], int], Any, bool]] = {
    "int(1.5 n)": (lambda n: int(1.5 * n), ["trunc", ["mul", 1.5, N]], True),
    "ceil(n / 3)": (lambda n: math.ceil(n / 3), ["ceil", ["truediv", N, 3]], True),
    "floor(n / 7)": (lambda n: math.floor(n / 7), ["floor", ["truediv", N, 7]], True),
    "floor(0.25 n - 2)": (
        lambda n: math.floor(0.25 * n - 2),
        ["floor", ["add", ["mul", 0.25, N], -2.0]],
        True,
    ),
    "int((n - 5) / 2)": (
        lambda n: int((n - 5) / 2),
        ["trunc", ["truediv", ["add", N, -5], 2]],
        True,
    ),
    "ceil((n - 5) / 3)": (
        lambda n: math.ceil((n - 5) / 3),
        ["ceil", ["truediv", ["add", N, -5], 3]],
        True,
    ),
    "ceil(n / -3)": (lambda n: math.ceil(n / -3), ["ceil", ["truediv", N, -3]], True),
    "round(n / 2)": (lambda n: round(n / 2), ["round", ["truediv", N, 2]], True),
    "round(n / 3)": (lambda n: round(n / 3), ["round", ["truediv", N, 3]], True),
    "round(2.5 n - 9)": (
        lambda n: round(2.5 * n - 9),
        ["round", ["add", ["mul", 2.5, N], -9]],
        True,
    ),
    "int(1.1 n)": (lambda n: int(1.1 * n), ["trunc", ["mul", 1.1, N]], True),
    "int(0.7 n)": (lambda n: int(0.7 * n), ["trunc", ["mul", 0.7, N]], False),
    "int(0.29 n)": (lambda n: int(0.29 * n), ["trunc", ["mul", 0.29, N]], False),
    "int(n / 1.3)": (lambda n: int(n / 1.3), ["trunc", ["truediv", N, 1.3]], True),
    "n // 1.5": (lambda n: int(n // 1.5), ["trunc", ["floordiv", N, 1.5]], True),
    "twice": (
        lambda n: int(1.5 * int(1.5 * n)),
        ["trunc", ["mul", 1.5, ["trunc", ["mul", 1.5, N]]]],
        True,
    ),
    "largest": (
        lambda n: math.floor(max(n * 0.5, n / 4 + 3)),
        ["floor", ["max", ["mul", 0.5, N], ["add", ["truediv", N, 4], 3]]],
        True,
    ),
    "by itself": (lambda n: int(n / max(n, 1)), ["trunc", ["truediv", N, ["max", N, 1]]], True),
    "root of a power": (
        lambda n: int((n * 1.0) ** 2),
        ["trunc", ["pow", ["mul", 1.0, N], 2]],
        False,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_form_has_pythons_value_at_every_size(name: str) -> None:
    wanted, tree, is_whole = CASES[name]
    made = in_integers(tree, up_to(300))

    size_expr.check(made, [2], "it")
    assert has_fractions(made) != is_whole
    for n in range(301):
        found = value(made, n)
        assert type(found) is int
        assert found == wanted(n)


def test_a_product_that_rounds_to_another_integer_is_not_replaced() -> None:
    """0.29 * 100 is 28.999..., and 29 / 100 of 100 is 29."""
    tree = ["trunc", ["mul", 0.29, N]]
    assert not has_fractions(in_integers(tree, up_to(99)))
    assert value(in_integers(tree, up_to(100)), 100) == int(0.29 * 100) == 28


@pytest.mark.parametrize("high", [None, 2**40])
def test_a_fraction_stays_where_too_many_sizes_would_have_to_be_tried(high: int | None) -> None:
    assert has_fractions(in_integers(["trunc", ["mul", 1.1, N]], up_to(high)))
    assert not has_fractions(in_integers(["trunc", ["mul", 1.5, N]], up_to(high)))
    assert not has_fractions(in_integers(["ceil", ["truediv", N, 3]], up_to(high)))


def test_integers_stay_as_they_are() -> None:
    tree = ["add", ["mul", -1, ["floordiv", ["mul", -1, N], 4]], ["max", K, 1]]
    assert in_integers(tree, up_to(9)) == tree


def _random_fraction(rng: random.Random, depth: int) -> tuple[Any, str]:
    """A tree of numbers, and the same as Python text."""
    if depth == 0 or rng.random() < 0.2:
        if rng.random() < 0.5:
            number = rng.choice([0.5, 1.5, 0.1, 0.7, 2, 3, -1, 0.25])
            return number, f"({number})"
        axis = rng.randint(0, 1)
        return ["dim", 0, axis], "nk"[axis]
    left, left_text = _random_fraction(rng, depth - 1)
    right, right_text = _random_fraction(rng, depth - 1)
    name = rng.choice(["add", "mul", "max", "min", "truediv", "floor"])
    if name == "floor":
        return [name, left], f"math.floor({left_text})"
    if name == "truediv":
        number = rng.choice([2, 3, 0.3, 4, -5])
        return [name, left, number], f"({left_text} / {number})"
    if name in ("max", "min"):
        return [name, left, right], f"{name}({left_text}, {right_text})"
    return [name, left, right], f"({left_text} {'+' if name == 'add' else '*'} {right_text})"


@pytest.mark.parametrize("seed", range(150))
def test_random_roundings_have_the_value_of_their_python_text(seed: int) -> None:
    rng = random.Random(seed)
    inner, text = _random_fraction(rng, 3)
    name = rng.choice(["floor", "ceil", "trunc", "round"])
    function = {"trunc": math.trunc, "floor": math.floor, "ceil": math.ceil, "round": round}[name]
    made = in_integers([name, inner], up_to(40))
    if has_fractions(made) or not isinstance(made, list) or "round" in str(made):
        return
    for n in range(0, 41, 3):
        for k in range(0, 41, 4):
            wanted = function(eval(text, {"math": math, "n": n, "k": k}))
            assert value(made, n, k) == wanted, (text, n, k)
