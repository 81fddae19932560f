"""The inputs and outputs of a block as the manifest describes them, from a graph's values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram

from portrt import torch_internals
from portrt.errors import PartitionError
from portrt.format import size_expr
from portrt.graphs import symbols
from portrt.graphs.symbols import ProfileRanges


def size_tree(size: Any, known: symbols.Dimensions) -> Any:
    """The tree of a size for a manifest.

    Raises:
        PartitionError: It has none.
    """
    tree = symbols.tree_of_size(size, known)
    if tree is None:
        raise PartitionError(
            f"the size {size} has no form as an expression tree",
            "whole-number arithmetic on input sizes",
            "report the model: portrt should have left this node in PyTorch",
        )
    return tree


def dtype_name(value: torch.Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def input_entries(
    inputs: Sequence[torch.fx.Node],
    known: symbols.Dimensions,
    program: ExportedProgram,
    best: ProfileRanges,
) -> tuple[Mapping[str, Any], ...]:
    entries = []
    for index, node in enumerate(inputs):
        value = node.meta["val"]
        shape = [
            _input_size(size, (index, axis), known, program, best)
            for axis, size in enumerate(value.shape)
        ]
        entries.append({"name": node.name, "dtype": dtype_name(value), "shape": shape})
    return tuple(entries)


def _input_size(
    size: Any,
    place: tuple[int, int],
    known: symbols.Dimensions,
    program: ExportedProgram,
    best: ProfileRanges,
) -> Any:
    if isinstance(size, int):
        return size
    expression = torch_internals.expression_of(size)
    if known[expression] != place:
        return ["dim", *known[expression]]
    # In terms of dimensions that come before, or else as a dimension of its own.
    earlier = {key: where for key, where in known.items() if where < place}
    tree = symbols.tree_of_size(size, earlier)
    if tree is not None:
        return tree
    least, most = symbols.range_of(size, program.range_constraints)

    def within(wanted: int) -> int:
        return max(least, wanted if most is None else min(wanted, most))

    profiles = [[*map(within, item)] for item in symbols.ranges_of(expression, best)]
    wanted = profiles[0][1] if profiles else within(torch_internals.hint_of(size) or least)
    entry = {"min": least, "opt": wanted, "max": most, "symbol": str(expression)}
    return entry if profiles in ([], [[least, wanted, most]]) else {**entry, "profiles": profiles}


def _output_size(size: Any, known: symbols.Dimensions, program: ExportedProgram) -> Any:
    tree = symbols.tree_of_size(size, known)
    if tree is None and symbols.unbacked_symbols([size]):
        _, most = symbols.range_of(size, program.range_constraints)
        most = None if most is None or most > size_expr.MAX_SIZE else most
        return {"unknown": most, "symbol": str(torch_internals.expression_of(size))}
    return size_tree(size, known)


def output_entry(
    node: torch.fx.Node, known: symbols.Dimensions, program: ExportedProgram
) -> Mapping[str, Any]:
    value = node.meta["val"]
    shape = [_output_size(size, known, program) for size in value.shape]
    return {"name": node.name, "dtype": dtype_name(value), "shape": shape}
