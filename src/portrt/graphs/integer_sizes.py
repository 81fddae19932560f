"""Integer forms of sizes that Python computes with fractions.

`int(1.5 * n)` is `3 * n // 2`. Engines compute int64 exactly, and fractions as float32, or not at
all. A form is used only where it is proven to give what Python's float arithmetic gives, for every
size: no operation rounds; or one division does, which cannot reach the next integer; or every size
of the range was tried.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

from portrt.format import size_expr
from portrt.format.size_expr import Tree

# (input, axis) -> the smallest and the largest size; None if it is unbounded.
Sizes = Callable[[int, int], "tuple[int, int | None]"]

# No dimension of a tensor is longer.
_LONGEST = 2**40
# Up to here float64 has every integer.
_EXACT = 2**53
_MAX_TRIED = 2**18
# Makes at least 1 of every fraction of a float64 number from 1 on.
_MAGNIFIED = 2.0**60
# Denominators of the fractions that are tried for a number such as 1.1.
_TRIED_DENOMINATORS = (64, 4096)
_ROUNDINGS = ("floor", "ceil", "trunc", "round")


def any_size(_input: int, _axis: int) -> tuple[int, int | None]:
    """Return the range of a size of which nothing is known."""
    return 0, None


def in_integers(tree: Tree, sizes: Sizes = any_size) -> Tree:
    """Return a tree with the same value that computes in integers where that is proven possible.

    Args:
        tree: An expression tree, in which "round" (half to even) stands for Python's.
        sizes: Range of each dimension.
    """
    if not isinstance(tree, list) or tree[0] == "dim":
        return tree
    name, *arguments = tree
    arguments = [in_integers(argument, sizes) for argument in arguments]
    found = [name, *arguments]
    if name in _ROUNDINGS:
        (argument,) = arguments
        if size_expr.is_integral(argument):
            return argument
        made = _rounded(name, argument, sizes)
        return found if made is None else made
    if name == "floordiv" and not all(map(size_expr.is_integral, arguments)):
        ratio = _ratio(["truediv", *arguments], sizes, None)
        # Python's rounds the exact quotient down.
        return found if ratio is None or ratio.error == 2 else ["mul", 1.0, _floor(ratio, sizes)]
    return found


def truncating(name: str, number: Tree) -> Tree:
    """Return "floor" or "ceil" of a number by "trunc": torch saves no program with the others."""
    if size_expr.is_integral(number):
        return number
    towards_zero, sign = ["trunc", number], 1 if name == "ceil" else -1
    beyond = ["add", ["mul", float(sign), number], ["mul", -float(sign), towards_zero]]
    is_beyond = ["trunc", ["max", 0.0, ["min", 1.0, ["mul", _MAGNIFIED, beyond]]]]
    return ["add", towards_zero, is_beyond if sign == 1 else ["mul", -1, is_beyond]]


def interval(tree: Tree, sizes: Sizes) -> tuple[float, float]:
    """Return bounds of a tree's value, with infinities where none are known."""
    if isinstance(tree, (int, float)):
        return tree, tree
    name, *arguments = tree
    if name == "dim":
        least, most = sizes(*arguments)
        return least, _LONGEST if most is None else most
    parts = [interval(argument, sizes) for argument in arguments]
    if name in ("max", "min"):
        choose = max if name == "max" else min
        return choose(low for low, _ in parts), choose(high for _, high in parts)
    if name in ("floor", "ceil", "trunc", "round"):
        ((low, high),) = parts
        return low - 1, high + 1
    found = parts[0]
    for other in parts[1:]:
        found = _of_two(name, found, other)
    return found


def _of_two(
    name: str, left: tuple[float, float], right: tuple[float, float]
) -> tuple[float, float]:
    if name == "add":
        return left[0] + right[0], left[1] + right[1]
    if name == "mul":
        ends = [_product(x, y) for x in left for y in right]
        return min(ends), max(ends)
    if name in ("floordiv", "truediv") and right[0] > 0:
        ends = [_quotient(name, x, y) for x in left for y in right]
        return min(ends), max(ends)
    if name == "mod" and right[0] > 0:
        return 0, min(right[1], left[1]) if left[0] >= 0 else right[1]
    if name == "pow" and left[0] >= 0:
        return left[0] ** int(right[0]), left[1] ** int(right[0])
    return -math.inf, math.inf


def _product(x: float, y: float) -> float:
    return x * y if x and y else 0


def _quotient(name: str, x: float, y: float) -> float:
    if math.isinf(x):
        return x
    if math.isinf(y):
        return 0 if x >= 0 else -1
    return x // y if name == "floordiv" else x / y


@dataclass(frozen=True)
class _Ratio:
    """A number as a quotient of integers.

    Attributes:
        above, below: Trees of integers; `below` is positive, or zero where Python fails, too.
        error: 0 where float arithmetic gives this number, 1 where it gives the nearest one, and 2
            where it may give another.
    """

    above: Tree
    below: Tree
    error: int


def _rounded(name: str, argument: Tree, sizes: Sizes) -> Tree | None:
    """Return the integer form of a rounding of a fraction, or None."""
    for limit in (None, *_TRIED_DENOMINATORS):
        ratio = _ratio(argument, sizes, limit)
        if ratio is None:
            continue
        form = _FORMS[name](ratio, sizes)
        if form is None:
            continue
        if ratio.error == 0 or (ratio.error == 1 and name != "round"):
            return form
        if _is_same(name, argument, form, sizes):
            return form
    return None


def _ratio(tree: Tree, sizes: Sizes, limit: int | None) -> _Ratio | None:
    """Return a tree as a quotient, or None.

    Args:
        tree: A tree whose integral parts are computed in integers.
        sizes: Range of each dimension.
        limit: The largest denominator of constants; None for their exact value.
    """
    if size_expr.is_integral(tree):
        return _checked(_Ratio(tree, 1, 0), sizes)
    if isinstance(tree, float):
        return _of_constant(tree, limit)
    name, *arguments = tree
    if name not in ("add", "mul", "max", "min", "truediv"):
        return None
    parts = [_ratio(argument, sizes, limit) for argument in arguments]
    found = parts[0]
    for other in parts[1:]:
        if found is None or other is None:
            return None
        found = _checked(_COMBINED[name](found, other, sizes), sizes)
    return found


def _of_constant(value: float, limit: int | None) -> _Ratio | None:
    if not math.isfinite(value):
        return None
    exact = Fraction(value)
    if limit is None:
        small = exact.denominator <= 2**20 and abs(exact.numerator) <= 2**40
        return _Ratio(exact.numerator, exact.denominator, 0) if small else None
    near = exact.limit_denominator(limit)
    return _Ratio(near.numerator, near.denominator, 0 if near == exact else 2)


def _checked(ratio: _Ratio | None, sizes: Sizes) -> _Ratio | None:
    """Return a quotient with the error that its magnitude leads to."""
    if ratio is None:
        return None
    largest = max(abs(end) for tree in (ratio.above, ratio.below) for end in interval(tree, sizes))
    if largest >= _EXACT:
        return _Ratio(ratio.above, ratio.below, 2)
    if ratio.error == 0 and not _is_power_of_two(ratio.below):
        return _Ratio(ratio.above, ratio.below, 1)
    return ratio


def _is_power_of_two(tree: Tree) -> bool:
    return isinstance(tree, int) and tree > 0 and tree & (tree - 1) == 0


def _sum(left: _Ratio, right: _Ratio, _sizes: Sizes) -> _Ratio:
    above = _added(_times(left.above, right.below), _times(right.above, left.below))
    below = _times(left.below, right.below)
    if left.below == right.below:
        above, below = _added(left.above, right.above), left.below
    return _Ratio(above, below, _error(left, right))


def _times_ratio(left: _Ratio, right: _Ratio, _sizes: Sizes) -> _Ratio:
    return _Ratio(
        _times(left.above, right.above), _times(left.below, right.below), _error(left, right)
    )


def _divided(left: _Ratio, right: _Ratio, sizes: Sizes) -> _Ratio | None:
    low, high = interval(right.above, sizes)
    if low < 0:
        if high >= 0:
            return None
        right = _Ratio(_times(right.above, -1), right.below, right.error)
        left = _Ratio(_times(left.above, -1), left.below, left.error)
    above, below = _times(left.above, right.below), _times(left.below, right.above)
    return _Ratio(above, below, _error(left, right))


def _chosen(name: str) -> Callable[[_Ratio, _Ratio, Sizes], _Ratio]:
    def chosen(left: _Ratio, right: _Ratio, _sizes: Sizes) -> _Ratio:
        if left.below == right.below:
            return _Ratio([name, left.above, right.above], left.below, _error(left, right))
        above = [name, _times(left.above, right.below), _times(right.above, left.below)]
        return _Ratio(above, _times(left.below, right.below), _error(left, right))

    return chosen


def _error(left: _Ratio, right: _Ratio) -> int:
    return 0 if left.error == right.error == 0 else 2


_COMBINED: Mapping[str, Callable[[_Ratio, _Ratio, Sizes], _Ratio | None]] = {
    "add": _sum,
    "mul": _times_ratio,
    "truediv": _divided,
    "max": _chosen("max"),
    "min": _chosen("min"),
}


def _floor(ratio: _Ratio, _sizes: Sizes) -> Tree:
    return _over(ratio.above, ratio.below)


def _ceil(ratio: _Ratio, _sizes: Sizes) -> Tree:
    if isinstance(ratio.below, int):
        return _over(_added(ratio.above, ratio.below - 1), ratio.below)
    return _times(_over(_times(ratio.above, -1), ratio.below), -1)


def _trunc(ratio: _Ratio, sizes: Sizes) -> Tree:
    low, high = interval(ratio.above, sizes)
    if low >= 0:
        return _floor(ratio, sizes)
    if high <= 0:
        return _ceil(ratio, sizes)
    return ["add", ["max", 0, _floor(ratio, sizes)], ["min", 0, _ceil(ratio, sizes)]]


def _round(ratio: _Ratio, _sizes: Sizes) -> Tree | None:
    """Round half to even: half up, minus one at a half whose upper neighbour is odd."""
    if not isinstance(ratio.below, int):
        return None
    above, below = _added(_times(ratio.above, 2), ratio.below), 2 * ratio.below
    up = _over(above, below)
    if ratio.below % 2:  # no half
        return up
    is_half = ["add", 1, ["mul", -1, ["min", 1, ["mod", above, below]]]]
    return ["add", up, ["mul", -1, is_half, ["mod", up, 2]]]


_FORMS: Mapping[str, Callable[[_Ratio, Sizes], Tree | None]] = {
    "floor": _floor,
    "ceil": _ceil,
    "trunc": _trunc,
    "round": _round,
}


def _added(left: Tree, right: Tree) -> Tree:
    if isinstance(left, int) and isinstance(right, int):
        return left + right
    if left == 0 or right == 0:
        return right if left == 0 else left
    return ["add", left, right]


def _times(left: Tree, right: Tree) -> Tree:
    if isinstance(left, int) and isinstance(right, int):
        return left * right
    for tree, factor in ((left, right), (right, left)):
        if isinstance(factor, int) and factor in (0, 1):
            return tree if factor else 0
        if isinstance(factor, int) and _has_factor(tree):
            return _times(tree[2], tree[1] * factor)
    if isinstance(right, int):
        left, right = right, left
    return ["mul", left, right]


def _has_factor(tree: Tree) -> bool:
    """Return whether a tree is a number times a tree."""
    is_product = isinstance(tree, list) and tree[0] == "mul" and len(tree) == 3
    return is_product and isinstance(tree[1], int)


def _over(above: Tree, below: Tree) -> Tree:
    """Return the floor of a quotient, with a common factor of constants removed."""
    if below == 1:
        return above
    if isinstance(above, int) and isinstance(below, int):
        return above // below
    if isinstance(below, int) and _has_factor(above):
        common = math.gcd(above[1], below)
        if common > 1:
            return _over(_times(above[2], above[1] // common), below // common)
    return ["floordiv", above, below]


def _is_same(name: str, argument: Tree, form: Tree, sizes: Sizes) -> bool:
    """Return whether a rounding has the value of `form` at all sizes; no if those are many."""
    dims = sorted(set(_dims(argument)))
    ranges = tuple(sizes(*dim) for dim in dims)
    count = math.prod(_LONGEST if high is None else high - low + 1 for low, high in ranges)
    if not dims or not 0 < count <= _MAX_TRIED:
        return False
    return _is_same_within(name, json.dumps([argument, form]), tuple(dims), ranges)


@lru_cache(maxsize=256)
def _is_same_within(
    name: str,
    trees: str,
    dims: tuple[tuple[int, int], ...],
    ranges: tuple[tuple[int, int | None], ...],
) -> bool:
    import numpy as np

    meaning = _numpy_meaning()
    axes = [np.arange(low, (high or 0) + 1, dtype=np.int64) for low, high in ranges]
    grid = dict(zip(dims, np.meshgrid(*axes), strict=True))
    try:
        with np.errstate(all="ignore"):
            value, found = (
                size_expr.evaluate(tree, lambda *dim: grid[dim], meaning)
                for tree in json.loads(trees)
            )
            return bool(np.all(np.isfinite(value)) and np.all(meaning[name](value) == found))
    except ArithmeticError:  # beyond int64
        return False


def _dims(tree: Tree) -> Iterator[tuple[int, int]]:
    if isinstance(tree, list):
        if tree[0] == "dim":
            yield (tree[1], tree[2])
        else:
            for argument in tree[1:]:
                yield from _dims(argument)


def _numpy_meaning() -> Mapping[str, Callable[..., Any]]:
    """Return the operators on arrays of int64 and float64, which are exact as Python's are."""
    import numpy as np

    def to_int(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return lambda value: function(value).astype(np.int64)

    return {
        "add": np.add,
        "mul": np.multiply,
        "max": np.maximum,
        "min": np.minimum,
        "floordiv": np.floor_divide,
        "truediv": np.true_divide,
        "mod": np.mod,
        "pow": np.power,
        "floor": to_int(np.floor),
        "ceil": to_int(np.ceil),
        "trunc": to_int(np.trunc),
        "round": to_int(np.rint),
    }
