"""Cases of `conformance/size_expressions.json`, with values by exact arithmetic of their own.

Integers are exact. An operator with a float among its arguments takes each as a binary64 and gives
the binary64 nearest to the exact result, `truediv` does so with integers too, and `max` and `min`
give one of their arguments.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

Case = dict[str, Any]
Number = int | float

LIMIT = 2**62
SHAPES = [[7, 12], [5], []]
A, B, C = ["dim", 0, 0], ["dim", 0, 1], ["dim", 1, 0]
BOUNDLESS = ("add", "mul", "max", "min")


class BeyondError(Exception):
    """A step is beyond the limit, or divides by zero."""


def rounded(exact: Fraction, *arguments: Number) -> Number:
    """The result of an operator on these arguments, from its exact value."""
    if abs(exact) > LIMIT:
        raise BeyondError
    if any(isinstance(argument, float) for argument in arguments):
        return float(exact)
    assert exact.denominator == 1
    return exact.numerator


def floor_of(exact: Fraction) -> int:
    return exact.numerator // exact.denominator


def step(name: str, a: Number, b: Number) -> Number:
    """One operator on two arguments."""
    if name in ("max", "min"):
        return (max if name == "max" else min)(a, b)
    mixed = isinstance(a, float) or isinstance(b, float)
    one, two = (Fraction(float(x)) if mixed else Fraction(x) for x in (a, b))
    if name == "add":
        return rounded(one + two, a, b)
    if name == "mul":
        return rounded(one * two, a, b)
    if name == "pow":
        return rounded(one ** int(two), a)
    if two == 0:
        raise BeyondError
    if name == "truediv":
        return rounded(one / two, 0.0)
    whole = floor_of(one / two)
    return (
        rounded(Fraction(whole), a, b) if name == "floordiv" else rounded(one - whole * two, a, b)
    )


def value_of(tree: Any, shapes: list[list[int]]) -> Number:
    if not isinstance(tree, list):
        return tree  # type: ignore[no-any-return]
    name, *arguments = tree
    if name == "dim":
        return shapes[arguments[0]][arguments[1]]
    values = [value_of(argument, shapes) for argument in arguments]
    if len(values) > 1:
        total = values[0]
        for value in values[1:]:
            total = step(name, total, value)
        return total
    exact = Fraction(values[0])
    down, up = floor_of(exact), -floor_of(-exact)
    return {"floor": down, "ceil": up, "trunc": down if exact >= 0 else up}[name]


def computed(name: str, tree: Any, shapes: list[list[int]] | None = None) -> Case:
    shapes = SHAPES if shapes is None else shapes
    case = {"name": name, "tree": tree, "shapes": shapes}
    try:
        value = value_of(tree, shapes)
    except BeyondError:
        return {**case, "error": "arithmetic"}
    assert isinstance(value, int)
    return {**case, "value": value}


def malformed(name: str, tree: Any, field: str = "") -> Case:
    return {"name": name, "tree": tree, "shapes": SHAPES, "error": "malformed", "field": field}


def deep(levels: int) -> Any:
    tree: Any = 1
    for _ in range(levels):
        tree = ["floor", tree]
    return tree


def operators() -> Iterator[Case]:
    yield computed("integer", 3)
    yield computed("zero", 0)
    yield computed("negative integer", -3)
    yield computed("dimension", A)
    yield computed("dimension of another input", C)
    for name in BOUNDLESS:
        yield computed(f"{name} of two", [name, A, 4])
        yield computed(f"{name} of three", [name, A, B, C])
        yield computed(f"{name} with a negative one", [name, A, ["mul", -1, B], C])
        yield computed(f"{name} of equals", [name, A, A])
    for name in ("floordiv", "mod"):
        for a in (-8, -7, -1, 0, 1, 7, 8):
            for b in (-4, -1, 1, 4):
                yield computed(f"{name} of {a} by {b}", [name, a, b])
        yield computed(f"{name} by zero", [name, 7, 0])
        yield computed(f"{name} of zero by zero", [name, 0, ["add", A, -7]])
        yield computed(f"{name} of a float", ["floor", [name, ["mul", -1.5, A], 4]])
        yield computed(f"{name} by a float", ["floor", [name, A, 2.5]])
        yield computed(f"{name} by the float zero", ["floor", [name, A, 0.0]])
    for name in ("floor", "ceil", "trunc"):
        for a in (-8, -7, -1, 0, 1, 7, 8):
            yield computed(f"{name} of {a} / 4", [name, ["truediv", a, 4]])
        for number in (-2.5, -2.0, -0.5, -0.0, 0.5, 2.0, 2.5):
            yield computed(f"{name} of {number}", [name, number])
        yield computed(f"{name} of an integer", [name, A])
        yield computed(f"{name} by zero", [name, ["truediv", A, 0]])
    for base in (-3, 0, 1, 2, 7):
        for exponent in (0, 1, 2, 3, 16):
            yield computed(f"{base} to the power of {exponent}", ["pow", base, exponent])
    yield computed("power of a dimension", ["pow", A, 3])
    yield computed("power of a float", ["floor", ["pow", 1.5, 3]])
    yield computed("ceiling as floors", ["mul", -1, ["floordiv", ["mul", -1, A], 4]])
    yield computed("a convolution's output", ["add", 1, ["floordiv", ["add", A, 2, -3], 2]])
    yield computed("floats inside", ["floor", ["mul", 1.5, A]])
    yield computed("a float and an integer in a maximum", ["trunc", ["max", A, 7.5, B]])
    yield computed("a factor that no binary64 has", ["floor", ["mul", 0.1, 30]])
    yield computed("a sum that no binary64 has", ["ceil", ["mul", ["add", 0.1, 0.2], 10]])
    yield computed("a third, three times", ["floor", ["mul", ["truediv", 1, 3], 3]])


def large_numbers() -> Iterator[Case]:
    yield computed("the largest integer", LIMIT)
    yield computed("the smallest integer", -LIMIT)
    yield computed("an integer that no binary64 has", ["add", 2**53, 1])
    yield computed("exact beyond 2^53", ["add", LIMIT, -1])
    yield computed("exact product", ["mul", 3037000499, 1518500249])
    yield computed("exact floordiv", ["floordiv", LIMIT - 1, 3])
    yield computed("exact negative floordiv", ["floordiv", 1 - LIMIT, 3])
    yield computed("exact mod", ["mod", LIMIT - 1, 1000003])
    yield computed("exact power", ["pow", 13, 16])
    yield computed("floor of an integer beyond 2^53", ["floor", LIMIT - 1])
    yield computed("maximum beyond 2^53", ["max", LIMIT - 1, LIMIT - 2])
    yield computed("truediv rounds to binary64", ["floor", ["truediv", 2**53 + 1, 1]])
    yield computed("truediv rounds once", ["floor", ["truediv", LIMIT - 1, 3]])
    yield computed("a float makes its operator one of floats", ["floor", ["add", 2**53 + 1, 0.5]])
    yield computed("to the limit", ["add", LIMIT - 1, 1])
    yield computed("to the lower limit", ["add", 1 - LIMIT, -1])
    yield computed("beyond the limit", ["add", LIMIT, 1])
    yield computed("beyond the lower limit", ["add", -LIMIT, -1])
    yield computed("beyond the limit on the way", ["add", LIMIT, LIMIT, -LIMIT])
    yield computed("within the limit in another order", ["add", LIMIT, -LIMIT, LIMIT])
    yield computed("beyond the limit within", ["min", 1, ["mul", LIMIT, 2]])
    yield computed("a product beyond 64 bits", ["mul", LIMIT, LIMIT])
    yield computed("a product of 64 bits", ["mul", 2**31, 2**31])
    yield computed("a product beyond 62 bits", ["mul", 2**31, 2**31, 2])
    yield computed("a power beyond the limit", ["pow", 15, 16])
    yield computed("a power beyond 64 bits", ["pow", LIMIT, 16])
    yield computed("a float beyond the limit", ["floor", ["mul", 1e18, 5]])
    yield computed("a float power beyond every float", ["floor", ["pow", 1e18, 16]])
    yield computed("a quotient beyond the limit", ["floor", ["truediv", LIMIT, 0.5]])
    yield computed("a zero times something beyond", ["mul", 0, ["pow", 2, 16], ["pow", 10, 16]])
    yield computed(
        "a product that is zero at the end", ["mul", ["pow", 10, 16], ["pow", 10, 16], 0]
    )
    sizes = [[LIMIT, 1], [0], []]
    yield computed("dimension of the largest size", ["add", A, -1], sizes)
    yield computed("dimension of size zero", ["mul", A, C], sizes)
    yield computed("division by an empty dimension", ["floordiv", A, C], sizes)


def mixed_numbers() -> Iterator[Case]:
    """Integers that no binary64 has beside floats, and quotients of either sign."""
    odd = 2**53 + 1
    for name in ("max", "min"):
        for a, b in ((odd, float(2**53)), (float(2**53), odd), (LIMIT - 1, float(LIMIT))):
            yield computed(f"{name} of {a} and {b}", ["floor", [name, a, b]])
    yield computed("the first of equals, an integer", ["trunc", ["max", odd - 1, float(odd - 1)]])
    for a in (odd, -odd, LIMIT - 1, 1 - LIMIT, 7, -7):
        for b in (3, -3, odd, LIMIT - 1, 2**61 + 1, 0.75, -0.75):
            yield computed(f"floor of {a} / {b}", ["floor", ["truediv", a, b]])
            scaled = ["mul", ["truediv", a, b], float(2**20)]
            yield computed(f"{a} / {b} times 2^20", ["ceil", scaled])
    for a in (-7.5, -0.1, 0.3, 1e17, -1e17, 5):
        for b in (-2.5, -0.1, 0.1, 3, 1e-3, 1e15):
            for name in ("floordiv", "mod"):
                tree = ["mul", [name, a, b], 1024.0]
                yield computed(f"{name} of {a} by {b}, times 1024", ["floor", tree])


def limits() -> Iterator[Case]:
    yield computed("64 levels", deep(64))
    yield malformed("65 levels", deep(65))
    yield computed("4096 terms", ["add", *[1] * 4095])
    yield malformed("4097 terms", ["add", *[1] * 4096])
    yield computed("a dimension is one term", ["add", *[A] * 4095])
    yield computed("exponent 16", ["pow", 1, 16])


def malformed_trees() -> Iterator[Case]:
    for value in (True, None, "add", "1", {}, {"add": [1, 2]}):
        yield malformed(f"{value!r} as a tree", value)
        yield malformed(f"{value!r} as an argument", ["add", A, value], "/2")
    yield malformed("above the limit", LIMIT + 1)
    yield malformed("below the limit", -LIMIT - 1)
    yield malformed("above 64 bits", 2**64)
    yield malformed("of 30 digits", 10**30)
    yield malformed("above the limit within", ["add", A, ["mul", 2, LIMIT + 1]], "/2/2")
    yield malformed("a float above the limit", ["floor", 5e18], "/1")
    yield malformed("empty list", [])
    yield malformed("empty list within", ["add", 1, []], "/2")
    for head in (1, None, True, ["add"], "exec", "Add", "sub", "neg", ""):
        yield malformed(f"operator {head!r}", [head, 1, 2])
    for name in (*BOUNDLESS, "floordiv", "truediv", "mod", "pow"):
        yield malformed(f"{name} of nothing", [name])
        yield malformed(f"{name} of one", [name, 1])
    for name in ("floordiv", "truediv", "mod", "pow"):
        yield malformed(f"{name} of three", [name, 6, 2, 2])
    for name in ("floor", "ceil", "trunc"):
        yield malformed(f"{name} of nothing", [name])
        yield malformed(f"{name} of two", [name, 1.5, 2])
    for exponent in (-1, 17, 0.5, 2.0, True, None, A, LIMIT):
        yield malformed(f"exponent {exponent!r}", ["pow", 2, exponent], "/2")
    for name, arguments in {
        "no such input": [3, 0],
        "negative input": [-1, 0],
        "no such axis": [0, 2],
        "axis of a rank 0": [2, 0],
        "negative axis": [0, -1],
        "no axis": [0],
        "nothing": [],
        "one more": [0, 0, 0],
        "a float as input": [0.0, 0],
        "true as axis": [0, True],
        "a tree as input": [["floor", 0], 0],
        "a tree as axis": [0, ["floor", 0]],
    }.items():
        yield malformed(f"dimension: {name}", ["dim", *arguments])
        yield malformed(f"dimension within: {name}", ["mul", 2, ["dim", *arguments]], "/2")
    yield malformed("a float", 1.5)
    yield malformed("a float that is whole", 4.0)
    yield malformed("a quotient", ["truediv", B, 4])
    yield malformed("a float factor", ["mul", 0.5, A])
    yield malformed("a float in a maximum", ["max", A, 1.0])
    yield malformed("a float under a mod", ["mod", 7.5, 2])
    yield malformed("a power of a quotient", ["pow", ["truediv", A, 7], 2])


def random_trees() -> Iterator[Case]:
    rng = random.Random(0)
    for index in range(100):
        yield computed(f"random {index}", random_tree(rng, 4))


def random_tree(rng: random.Random, depth: int) -> Any:
    if depth == 0 or rng.random() < 0.2:
        return rng.choice([rng.randint(-9, 9), A, B, C])
    name = rng.choice([*BOUNDLESS, "floordiv", "mod", "pow", "floor", "ceil", "trunc"])
    if name in ("floor", "ceil", "trunc"):
        return [name, ["truediv", random_tree(rng, depth - 1), rng.choice([-8, 3, 5])]]
    if name == "pow":
        return [name, random_tree(rng, depth - 1), rng.randint(0, 4)]
    count = rng.randint(2, 3) if name in BOUNDLESS else 2
    return [name, *(random_tree(rng, depth - 1) for _ in range(count))]


def cases() -> list[Case]:
    return [
        *operators(),
        *large_numbers(),
        *mixed_numbers(),
        *limits(),
        *malformed_trees(),
        *random_trees(),
    ]
