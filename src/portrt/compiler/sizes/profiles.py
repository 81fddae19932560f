"""Optimization profiles whose ranges are given by names of sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from portrt.compiler.sizes.named_sizes import NamedSize
from portrt.errors import SettingsError
from portrt.graphs.symbols import ProfileRanges

Range = tuple[int, int, int]

_EXAMPLE = 'profiles=[{"batch": 1, "length": (2, 128, 512)}, {"batch": (1, 8, 32), "length": 1}]'


def profiles_of_names(
    profiles: Any, sizes: Mapping[str, NamedSize], tuned: ProfileRanges
) -> ProfileRanges:
    """Return symbol -> (min, opt, max) in each profile.

    Args:
        profiles: A list with a mapping for each profile: name -> a size, or a range
            (min, opt, max). A size that a profile does not name has its full range.
        sizes: The known names.
        tuned: Ranges of the `Input`s, for sizes that a profile does not name.

    Raises:
        SettingsError: A name is unknown, a range is malformed or exceeds the program's, two names
            of one size have different ranges, or an unbounded size is not named.
    """
    if not isinstance(profiles, (list, tuple)) or not profiles:
        raise _bad(f"profiles is {profiles!r}", "a list with a mapping for each profile")
    made = [_profile(index, profile, sizes, tuned) for index, profile in enumerate(profiles)]
    return {symbol: tuple(ranges[symbol] for ranges in made) for symbol in made[0]}


def _profile(
    index: int, profile: Any, sizes: Mapping[str, NamedSize], tuned: ProfileRanges
) -> dict[Any, Range]:
    if not isinstance(profile, Mapping):
        raise _bad(f"profile {index} is {profile!r}", "a mapping from names of sizes to ranges")
    found: dict[Any, Range] = {}
    for name, given in profile.items():
        if name not in sizes:
            known = ", ".join(map(repr, sizes)) or "none, since the model has no dynamic size"
            raise _bad(f"profile {index} names {name!r}", f"one of the dynamic sizes: {known}")
        symbol, ranges = sizes[name].symbol, _range(index, name, given, sizes[name])
        if found.setdefault(symbol, ranges) != ranges:
            raise _bad(
                f"profile {index} gives {name!r} a range that differs from that of another name "
                "of the same size",
                "one range per size",
            )
    for name, size in sizes.items():
        if size.symbol not in found:
            found[size.symbol] = _full_range(index, name, size, tuned)
    return found


def _range(index: int, name: str, given: Any, size: NamedSize) -> Range:
    """Convert a range of the size to a range of its symbol."""
    ends = (given,) * 3 if isinstance(given, int) else given
    is_range = isinstance(ends, (tuple, list)) and [type(end) for end in ends] == [int] * 3
    if not is_range or not ends[0] <= ends[1] <= ends[2]:
        raise _bad(
            f"profile {index} gives {name!r} as {given!r}",
            "a size, or (min, opt, max) with min <= opt <= max",
        )
    apart = [divmod(end - size.offset, size.scale) for end in ends]
    if any(rest for _, rest in apart):
        raise _bad(
            f"profile {index} gives {name!r} as {given!r}",
            f"sizes that are {size.scale} times an integer plus {size.offset}",
        )
    low, opt, high = (number for number, _ in apart)
    if low < size.min or (size.max is not None and high > size.max):
        bound = "any size" if size.max is None else size.scale * size.max + size.offset
        raise _bad(
            f"profile {index} gives {name!r} as {given!r}",
            f"a range within the program's, {size.scale * size.min + size.offset} to {bound}",
        )
    return low, opt, high


def _full_range(index: int, name: str, size: NamedSize, tuned: ProfileRanges) -> Range:
    if size.symbol in tuned:
        return tuned[size.symbol][0]
    if size.max is None:
        raise _bad(
            f"profile {index} does not name {name!r}, which has no maximum",
            "a range for every size without a maximum",
        )
    return size.min, min(max(size.opt, size.min), size.max), size.max


def _bad(happened: str, expected: str) -> SettingsError:
    return SettingsError(happened, expected, f"write for example {_EXAMPLE}")
