"""Size ranges that engines are tuned for: from `Input`s, or from profiles that name sizes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from portrt import torch_internals
from portrt.compiler.inputs import Input
from portrt.compiler.sizes.named_sizes import sizes_by_name
from portrt.compiler.sizes.profiles import profiles_of_names
from portrt.errors import SettingsError
from portrt.graphs.symbols import ProfileRanges


def sizes_to_tune_for(
    program: ExportedProgram,
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
    *,
    dynamic_shapes: Any = None,
    profiles: Any = None,
) -> ProfileRanges:
    """Return symbol -> (min, opt, max) in each optimization profile.

    Args:
        program: The captured program.
        args: Positional example arguments, as `capture` took them.
        kwargs: Keyword example arguments, as `capture` took them.
        dynamic_shapes: As `capture` took it.
        profiles: Ranges by name, as `compile` takes them.

    Raises:
        SettingsError: The profiles are invalid, see `profiles_of_names`; inputs have different
            numbers of profiles; or one size has two ranges.
    """
    given = list(arguments_of(program, args, kwargs))
    tuned = _sizes_of_inputs(given)
    if profiles is None:
        return tuned
    if any(isinstance(leaf, Input) and leaf.profiles for leaf, _ in given):
        raise SettingsError(
            "profiles were given both as an option and by an Input",
            "profiles in one of the two",
            "leave out Input(profiles=...), or profiles=",
        )
    sizes = sizes_by_name(program, args, kwargs, dynamic_shapes)
    return profiles_of_names(profiles, sizes, tuned)


def arguments_of(
    program: ExportedProgram, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None
) -> Iterator[tuple[Any, Any]]:
    """Yield each flat argument with its fake value in the program.

    Args:
        program: The captured program.
        args, kwargs: Example arguments, as `capture` took them.
    """
    if program.example_inputs is None:
        return iter(())
    named = {name: (kwargs or {}).get(name) for name in program.example_inputs[1]}
    leaves = pytree.tree_leaves((tuple(args or ()), named))
    return zip(leaves, torch_internals.user_input_values(program), strict=False)


def _sizes_of_inputs(arguments: Sequence[tuple[Any, Any]]) -> ProfileRanges:
    """Return the ranges of the `Input`s. Opt and example size may differ, see `example_shape`."""
    given = [pair for pair in arguments if isinstance(pair[0], Input)]
    count = max((len(leaf.profiles) for leaf, _ in given), default=0)
    found: dict[Any, tuple[tuple[int, int, int], ...]] = {}
    for leaf, value in given:
        _check_profile_count(leaf, count)
        for axis in leaf.dynamic_axes:
            if isinstance(value.shape[axis], torch.SymInt):
                symbol = torch_internals.expression_of(value.shape[axis])
                ranges = leaf.ranges(axis)
                _set_ranges(found, symbol, ranges if leaf.profiles else ranges * max(count, 1))
    return found


def _check_profile_count(leaf: Input, count: int) -> None:
    if leaf.profiles and len(leaf.profiles) != count:
        raise SettingsError(
            f"{leaf!r} has {len(leaf.profiles)} profiles, another input {count}",
            "the same number of profiles in every input that has profiles",
            "repeat a profile where an input has the same range in two of them",
        )


def _set_ranges(found: dict[Any, Any], symbol: Any, ranges: Any) -> None:
    """Set the ranges of a symbol; inputs that share a size must have equal min and max."""
    known = found.setdefault(symbol, ranges)
    if [(low, high) for low, _, high in known] != [(low, high) for low, _, high in ranges]:
        raise SettingsError(
            f"one size is {list(known)} in one input and {list(ranges)} in another",
            "the same (min, opt, max) in each profile of inputs that share a dimension",
            "make the profiles of the two inputs alike",
        )
