"""Size expressions: small trees over input dimensions, as plain JSON values.

A tree is an integer, a float inside an expression, or a list: ["dim", input, axis] or
[operator, argument, ...]. It is never evaluated as Python source.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from portrt.errors import PackageError, brief

Tree = Any  # int | float | list[...]: JSON has no recursive type that mypy and readers both like

_REMEDY = "get the file again from where it was made"

MAX_DEPTH = 64
MAX_TERMS = 4096
MAX_EXPONENT = 16
MAX_SIZE = 2**62  # also of every step on the way to a size: torch's sizes are 64 bits

# name -> (minimum and maximum number of arguments, 0 for no maximum; implementation on numbers)
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
    """Evaluate a checked tree.

    Args:
        tree: Expression that `check` accepted.
        dim: Function from (input, axis) to the size.
        meaning: Implementation of each operator; `NUMBERS` for plain numbers.

    Raises:
        ArithmeticError: Division by zero, or an intermediate value beyond +-MAX_SIZE, which bounds
            the time of the evaluation.
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
    """Raise OverflowError for a number beyond MAX_SIZE or NaN; symbolic values pass."""
    if isinstance(value, (int, float)) and not -MAX_SIZE <= value <= MAX_SIZE:
        raise OverflowError(f"a size is beyond {MAX_SIZE}")
    return value


def check(tree: Tree, ranks: Sequence[int], where: str, path: str = "") -> None:
    """Raise PackageError unless `tree` is a well-formed integer expression over known dimensions.

    Args:
        tree: Any value read from a file.
        ranks: Rank of each input that the tree may refer to.
        where: Description of the tree, for the message.
        path: JSON pointer of the tree.
    """
    _Check(ranks, where, path).check(tree, ())
    if not is_integral(tree):
        fact = f"{where} is the fraction {brief(tree)}"
        raise PackageError(fact, "an integer: floor, ceil or trunc", _REMEDY, path)


def is_integral(tree: Tree) -> bool:
    """Return whether a well-formed tree evaluates to an int, also with symbolic sizes."""
    if not isinstance(tree, list):
        return isinstance(tree, int)
    name, *arguments = tree
    if name in ("dim", "floor", "ceil", "trunc"):
        return True
    if name == "truediv":
        return False
    return all(map(is_integral, arguments))


class _Check:
    """One traversal of a tree, which counts its terms."""

    def __init__(self, ranks: Sequence[int], where: str, path: str) -> None:
        self._ranks = ranks
        self._where = where
        self._path = path
        self._terms = MAX_TERMS

    def check(self, tree: Tree, at: tuple[int, ...]) -> None:
        """Raise PackageError unless a tree is well-formed.

        Args:
            tree: Any value read from a file.
            at: Indices that lead to it from the root.
        """
        self._terms -= 1
        if len(at) > MAX_DEPTH or self._terms < 0:
            raise self._bad((), "is too large", f"at most {MAX_DEPTH} levels and {MAX_TERMS} terms")
        if isinstance(tree, bool) or not isinstance(tree, (int, float, list)):
            raise self._bad(at, f"contains {brief(tree)}", "numbers and lists")
        if isinstance(tree, list):
            self._check_call(tree, at)
        elif not -MAX_SIZE <= tree <= MAX_SIZE:  # NaN is not, either
            raise self._bad(at, f"contains {brief(tree)}", f"numbers within +-{MAX_SIZE}")

    def _check_call(self, tree: list[Any], at: tuple[int, ...]) -> None:
        name = tree[0] if tree else None
        if name == "dim":
            if not _is_dimension(tree, self._ranks):
                raise self._bad(at, f"refers to {brief(tree)}", '["dim", input, axis] of an input')
            return
        if not isinstance(name, str) or name not in OPERATORS:
            raise self._bad(at, f"uses {brief(name)}", f"dim, {', '.join(OPERATORS)}")
        minimum, maximum, _ = OPERATORS[name]
        count = len(tree) - 1
        if count < minimum or (maximum and count > maximum):
            limit = f"at least {minimum}" if maximum == 0 else f"{minimum}"
            raise self._bad(at, f"gives {name} {count} arguments", limit)
        if name == "pow" and not (type(tree[2]) is int and 0 <= tree[2] <= MAX_EXPONENT):
            raise self._bad(
                (*at, 2), f"raises to {brief(tree[2])}", f"an integer exponent up to {MAX_EXPONENT}"
            )
        for index, argument in enumerate(tree[1:], 1):
            self.check(argument, (*at, index))

    def _bad(self, at: tuple[int, ...], fact: str, expected: str) -> PackageError:
        field = "/".join([self._path, *map(str, at)])
        return PackageError(f"{self._where} {fact}", expected, _REMEDY, field)


def _is_dimension(tree: list[Any], ranks: Sequence[int]) -> bool:
    if len(tree) != 3 or any(type(part) is not int for part in tree[1:]):
        return False
    _, index, axis = tree
    return bool(0 <= index < len(ranks) and 0 <= axis < ranks[index])
