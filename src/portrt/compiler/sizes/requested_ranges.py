"""Ranges that `Input`s request, compared with those that torch.export found in the model."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram

from portrt import torch_internals
from portrt.compiler.inputs import Input
from portrt.compiler.sizes.tuning import arguments_of
from portrt.graphs import symbols
from portrt.graphs.program_inputs import user_input_nodes

logger = logging.getLogger(__name__)


def log_differences(
    program: ExportedProgram, args: Sequence[Any], kwargs: Mapping[str, Any], cause: str
) -> None:
    """Log which dynamic sizes of `Input`s are one size in the program, or have less of a range.

    Args:
        program: The captured program.
        args, kwargs: The arguments as the user gave them.
        cause: What torch.export found in the model.
    """
    places: dict[Any, list[str]] = {}
    found: list[str] = []
    names = user_input_nodes(program)
    for name, (leaf, value) in zip(names, arguments_of(program, args, kwargs), strict=False):
        for axis in leaf.dynamic_axes if isinstance(leaf, Input) else ():
            size, place = value.shape[axis], f"{name}[{axis}]"
            low, high = leaf.min_shape[axis], leaf.max_shape[axis]
            if not isinstance(size, torch.SymInt):
                found.append(f"{place} is {size} instead of {low} to {high}")
                continue
            places.setdefault(torch_internals.expression_of(size), []).append(place)
            least, most = symbols.range_of(size, program.range_constraints)
            if (least, most) != (low, high):
                found.append(f"{place} is {least} to {most} instead of {low} to {high}")
    joined = [group for group in places.values() if len(group) > 1]
    equal = [f"{', '.join(group[:-1])} and {group[-1]} are one size" for group in joined]
    found = equal + found
    if found:
        logger.warning(
            "the program takes fewer sizes than its inputs request: %s (%s)",
            "; ".join(found),
            cause,
        )
