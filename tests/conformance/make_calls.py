"""Cases of `conformance/calls.json`: shapes of calls, with the outputs' shapes by hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Case = dict[str, Any]

LIMIT = 2**62
A, B, C = ["dim", 0, 0], ["dim", 0, 1], ["dim", 1, 0]
UNKNOWN = {"unknown": 24, "symbol": "u0"}


def ranged(low: int, high: int | None, symbol: str = "n") -> dict[str, Any]:
    return {"min": low, "opt": low, "max": high, "symbol": symbol}


def spec(name: str, shape: list[Any], dtype: str = "float32") -> dict[str, Any]:
    return {"name": name, "dtype": dtype, "shape": shape}


def case(
    name: str,
    inputs: list[list[Any]],
    outputs: list[list[Any]],
    shapes: list[list[int]],
    wanted: list[list[int | None]] | None,
    dtypes: list[str] | None = None,
) -> Case:
    """A block of these shapes, called; `wanted` is None where the call is refused."""
    found: Case = {
        "name": name,
        "inputs": [spec(f"x{index}", shape) for index, shape in enumerate(inputs)],
        "outputs": [spec(f"out{index}", shape) for index, shape in enumerate(outputs)],
        "shapes": shapes,
        "dtypes": dtypes or ["float32"] * len(shapes),
    }
    return {**found, "error": "input"} if wanted is None else {**found, "output_shapes": wanted}


def fixed() -> Iterator[Case]:
    yield case("fixed sizes", [[2, 3]], [[2, 3]], [[2, 3]], [[2, 3]])
    yield case("rank 0", [[]], [[]], [[]], [[]])
    yield case("sizes of 0", [[0, 3]], [[3, 0]], [[0, 3]], [[3, 0]])
    yield case("another size", [[2, 3]], [[2, 3]], [[2, 4]], None)
    yield case("0 for a size", [[2]], [[2]], [[0]], None)
    yield case("one dimension more", [[2]], [[2]], [[2, 1]], None)
    yield case("one dimension less", [[2, 1]], [[2]], [[2]], None)
    yield case("rank 0 for rank 1", [[1]], [[1]], [[]], None)
    yield case("no inputs", [[2]], [[2]], [], None)
    yield case("one input more", [[2]], [[2]], [[2], [2]], None)
    yield case("one input less", [[2], [2]], [[2]], [[2]], None)
    yield case("another dtype", [[2]], [[2]], [[2]], None, ["float64"])
    second = ["float32", "int64"]
    yield case("another dtype of the second input", [[2], [2]], [[2]], [[2], [2]], None, second)
    yield case("a dtype that no block has", [[2]], [[2]], [[2]], None, ["float8_e4m3fnuz"])


def ranges() -> Iterator[Case]:
    block: list[Any] = [[ranged(2, 8), 3]], [[A, 3], [["mul", A, 2]]]
    for size in (2, 5, 8):
        yield case(f"{size} of 2 to 8", *block, [[size, 3]], [[size, 3], [2 * size]])
    for size in (0, 1, 9, LIMIT // 4):
        yield case(f"{size} is not of 2 to 8", *block, [[size, 3]], None)
    yield case("a fixed size beside a range", *block, [[2, 4]], None)
    endless = [[ranged(0, None)]], [[A]]
    yield case("0 where there is no bound", *endless, [[0]], [[0]])
    yield case("2^62 where there is no bound", *endless, [[LIMIT]], [[LIMIT]])


def conditions() -> Iterator[Case]:
    same = [[ranged(0, 9)], [A]], [[A]]
    yield case("a condition that is met", *same, [[4], [4]], [[4]])
    yield case("a condition that is not met", *same, [[4], [5]], None)
    own: list[Any] = [[ranged(0, 9), ["add", A, 1]]], [[B]]
    yield case("a condition on its own input", *own, [[4, 5]], [[5]])
    yield case("a condition on its own input, not met", *own, [[4, 4]], None)
    divided: list[Any] = [[ranged(0, 9)], [["floordiv", 12, A]]], [[C]]
    yield case("a quotient as a condition", *divided, [[5], [2]], [[2]])
    yield case("a condition that cannot be computed", *divided, [[0], [2]], None)


def outputs() -> Iterator[Case]:
    block = [[ranged(0, None)]]
    for trees, size, wanted in (
        ([["add", A, -3]], 3, [0]),
        ([["add", A, -3]], 2, None),
        ([["floordiv", 7, A]], 2, [3]),
        ([["floordiv", 7, A]], 0, None),
        ([["mul", A, A]], 2**31, [LIMIT]),
        ([["mul", A, A]], 2**31 + 1, None),
        ([4, ["mod", A, 4], A], 7, [4, 3, 7]),
        ([["ceil", ["truediv", A, 4]]], 9, [3]),
        ([["floor", ["mul", 0.5, A]]], 9, [4]),
        ([["min", A, 4]], 9, [4]),
    ):
        result = None if wanted is None else [wanted]
        yield case(f"{trees} of {size}", block, [trees], [[size]], result)
    negative = [[A], [["add", A, -9]]]
    yield case("the second output has a negative size", block, negative, [[4]], None)
    unknown = [[UNKNOWN, A], [A, UNKNOWN]]
    yield case("data-dependent sizes", block, unknown, [[4]], [[None, 4], [4, None]])
    beside = [[UNKNOWN, ["add", A, -9]]]
    yield case("a negative size beside a data-dependent one", block, beside, [[4]], None)


def cases() -> list[Case]:
    return [*fixed(), *ranges(), *conditions(), *outputs()]
