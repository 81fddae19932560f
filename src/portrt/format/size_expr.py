"""Sizes as small expression trees over input dimensions, in plain JSON values.

A tree is a whole number, a float inside an expression, or a list: ["dim", input, axis] or
[operator, argument, ...]. Nothing in it is ever evaluated as Python text.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from portrt.errors import PackageError, brief

Tree = Any  # int | float | list[...]: JSON has no recursive type that mypy and readers both like

MAX_DEPTH = 64
MAX_TERMS = 4096
MAX_EXPONENT = 16
MAX_SIZE = 2**62  # also of every step on the way to a size: torch's sizes are 64 bits

# name -> (fewest arguments, most arguments; 0 means no limit, meaning on plain numbers)
OPERATORS: dict[str, tuple[int, int, Callable[..., Any]]] = {
    "add": (2, 0, operator.add),
    "mul": (2, 0, operator.mul),
    "max": (2, 0, max),
    "min": (2, 0, min),
    "floordiv": (2, 2, operator.floordiv),
    "truediv": (2, 2, operator.truediv),
    "mod": (2, 2, operator.mod),
    "pow": (2, 2, operator.pow),
    "floor": (1, 1, math.floor),
    "ceil": (1, 1, math.ceil),
    "trunc": (1, 1, math.trunc),
}
NUMBERS: Mapping[str, Callable[..., Any]] = {name: row[2] for name, row in OPERATORS.items()}


def evaluate(
    tree: Tree,
    dim: Callable[[int, int], Any],
    meaning: Mapping[str, Callable[..., Any]] = NUMBERS,
) -> Any:
    """The value of a checked tree.

    Args:
        tree: Checked by `check`.
        dim: (input, axis) -> size.
        meaning: What the operators do; `NUMBERS` for plain numbers.

    Raises:
        ArithmeticError: A division by zero, or a step beyond +-MAX_SIZE: so its time is bounded.
    """
    if isinstance(tree, (int, float)):
        return tree
    name, *arguments = tree
    if name == "dim":
        return dim(*arguments)
    values = [evaluate(argument, dim, meaning) for argument in arguments]
    if OPERATORS[name][1] != 0:
        return _bounded(meaning[name](*values))
    total = values[0]
    for value in values[1:]:
        total = _bounded(meaning[name](total, value))
    return total


def _bounded(value: Any) -> Any:
    """The value; symbolic ones have no size yet, and NaN is within no bounds."""
    if isinstance(value, (int, float)) and not -MAX_SIZE <= value <= MAX_SIZE:
        raise OverflowError(f"a size is beyond {MAX_SIZE}")
    return value


def check(tree: Tree, ranks: Sequence[int], where: str) -> None:
    """Raise PackageError unless `tree` is a whole number, and refers to dimensions that exist.

    Args:
        tree: From a file; anything at all.
        ranks: Rank of each input that the tree may refer to.
        where: What the tree is, for the message.
    """
    budget = [MAX_TERMS]
    _check(tree, ranks, where, 0, budget)
    if not _is_whole(tree):
        raise _bad(where, f"is the fraction {brief(tree)}", "a whole number: floor, ceil or trunc")


def _is_whole(tree: Tree) -> bool:
    """Whether the value of a well-formed tree is an int: so that it is one as a symbol, too."""
    if not isinstance(tree, list):
        return isinstance(tree, int)
    name, *arguments = tree
    if name in ("dim", "floor", "ceil", "trunc"):
        return True
    if name == "truediv":
        return False
    return all(map(_is_whole, arguments))


def _check(tree: Tree, ranks: Sequence[int], where: str, depth: int, budget: list[int]) -> None:
    budget[0] -= 1
    if depth > MAX_DEPTH or budget[0] < 0:
        raise _bad(where, "is too large", f"at most {MAX_DEPTH} levels and {MAX_TERMS} terms")
    if isinstance(tree, bool) or not isinstance(tree, (int, float, list)):
        raise _bad(where, f"holds {brief(tree)}", "numbers and lists")
    if isinstance(tree, (int, float)):
        if not -MAX_SIZE <= tree <= MAX_SIZE:  # NaN is not, either
            raise _bad(where, f"holds {brief(tree)}", f"numbers within +-{MAX_SIZE}")
        return
    name = tree[0] if tree else None
    if name == "dim":
        if not _is_dimension(tree, ranks):
            raise _bad(where, f"refers to {brief(tree)}", '["dim", input, axis] of an input')
        return
    if not isinstance(name, str) or name not in OPERATORS:
        raise _bad(where, f"uses {brief(name)}", f"dim, {', '.join(OPERATORS)}")
    fewest, most, _ = OPERATORS[name]
    count = len(tree) - 1
    if count < fewest or (most and count > most):
        limit = f"at least {fewest}" if most == 0 else f"{fewest}"
        raise _bad(where, f"gives {name} {count} arguments", limit)
    if name == "pow" and not (isinstance(tree[2], int) and 0 <= tree[2] <= MAX_EXPONENT):
        raise _bad(where, f"raises to {brief(tree[2])}", f"a whole exponent up to {MAX_EXPONENT}")
    for argument in tree[1:]:
        _check(argument, ranks, where, depth + 1, budget)


def _is_dimension(tree: list[Any], ranks: Sequence[int]) -> bool:
    if len(tree) != 3 or any(type(part) is not int for part in tree[1:]):
        return False
    _, index, axis = tree
    return bool(0 <= index < len(ranks) and 0 <= axis < ranks[index])


def _bad(where: str, fact: str, expected: str) -> PackageError:
    return PackageError(f"{where} {fact}", expected, "get the file again from where it was made")
