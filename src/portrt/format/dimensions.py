"""Sizes in the shapes of a manifest. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from portrt.errors import PackageError, brief
from portrt.format import size_expr
from portrt.format.json_fields import REMEDY, Fields

MAX_RANK = 64


@dataclass(frozen=True)
class Dimension:
    """A dynamic size of an input.

    Attributes:
        min: Smallest size.
        opt: Size that engines are tuned for.
        max: Largest size, or None if unbounded.
        symbol: Name of the size; equal symbols are equal sizes.
        profiles: (min, opt, max) in each optimization profile; empty if there is only one, with
            the whole range.
    """

    min: int
    opt: int
    max: int | None
    symbol: str
    profiles: tuple[tuple[int, int, int], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return its entry in a manifest."""
        entry = {"min": self.min, "opt": self.opt, "max": self.max, "symbol": self.symbol}
        if self.profiles:
            return {**entry, "profiles": [list(profile) for profile in self.profiles]}
        return entry


@dataclass(frozen=True)
class DataDependentSize:
    """A data-dependent size of an output: at most `max`; one symbol is one size."""

    max: int | None
    symbol: str

    def to_json(self) -> dict[str, Any]:
        """Return its entry in a manifest."""
        return {"unknown": self.max, "symbol": self.symbol}


def input_shape(part: Fields, ranks: list[int]) -> tuple[Any, ...]:
    """Read the shape of an input, and append its rank to those of the inputs before it.

    Args:
        part: Manifest entry of the input.
        ranks: Ranks of the inputs before it; size expressions may refer to these and to itself.

    Raises:
        PackageError: A size is malformed.
    """
    sizes = _sizes(part)
    ranks.append(len(sizes))
    return tuple(
        _input_size(size, ranks, part.where, part.at("shape", axis))
        for axis, size in enumerate(sizes)
    )


def output_shape(part: Fields, ranks: Sequence[int]) -> tuple[Any, ...]:
    """Read the shape of an output.

    Args:
        part: Manifest entry of the output.
        ranks: Ranks of the inputs.

    Raises:
        PackageError: A size is malformed.
    """
    return tuple(
        _output_size(size, ranks, part.where, part.at("shape", axis))
        for axis, size in enumerate(_sizes(part))
    )


def has_data_dependent_sizes(outputs: Iterable[Mapping[str, Any]]) -> bool:
    """Return whether an output, given as JSON, has a data-dependent size."""
    return any(isinstance(size, dict) for entry in outputs for size in entry["shape"])


def _sizes(part: Fields) -> list[Any]:
    sizes = part.items("shape")
    if len(sizes) > MAX_RANK:
        raise PackageError(
            f"{part.where} has rank {len(sizes)}", f"up to {MAX_RANK}", REMEDY, part.at("shape")
        )
    return sizes


def _input_size(size: Any, ranks: Sequence[int], where: str, path: str) -> Any:
    if not isinstance(size, dict):
        return _size(size, ranks, where, path)
    part = Fields(size, f"a dimension of {where}", path)
    minimum, opt = part.integer("min"), part.integer("opt")
    maximum = None if part.is_null("max") else part.integer("max")
    if not (minimum <= opt and (maximum is None or opt <= maximum)):
        raise PackageError(
            f"a dimension of {where} has min {minimum}, opt {opt}, max {maximum}",
            "min <= opt <= max",
            REMEDY,
            path,
        )
    profiles = _profiles(part, minimum, maximum)
    return Dimension(minimum, opt, maximum, part.text("symbol"), profiles)


def _is_ascending(sizes: list[int], maximum: int | None) -> bool:
    limit = size_expr.MAX_SIZE if maximum is None else maximum
    return sizes == sorted(sizes) and sizes[-1] <= limit


def _profiles(part: Fields, minimum: int, maximum: int | None) -> tuple[tuple[int, int, int], ...]:
    found = part.items("profiles") if "profiles" in part.raw else []
    for index, item in enumerate(found):
        is_range = isinstance(item, list) and [type(size) for size in item] == [int] * 3
        if not is_range or not _is_ascending([minimum, *item], maximum):
            raise PackageError(
                f"a profile of {part.where} is {brief(item)}",
                "three integers in its range, min <= opt <= max",
                REMEDY,
                part.at("profiles", index),
            )
    return tuple((low, opt, high) for low, opt, high in found)


def _output_size(size: Any, ranks: Sequence[int], where: str, path: str) -> Any:
    if not isinstance(size, dict):
        return _size(size, ranks, where, path)
    part = Fields(size, f"a dimension of {where}", path)
    maximum = None if part.is_null("unknown") else part.integer("unknown")
    return DataDependentSize(maximum, part.text("symbol"))


def _size(size: Any, ranks: Sequence[int], where: str, path: str) -> Any:
    size_expr.check(size, ranks, f"a size of {where}", path)
    if isinstance(size, int) and size < 0:
        raise PackageError(f"a size of {where} is {size!r}", "an integer from 0", REMEDY, path)
    return size
