"""The specs of a block's inputs and outputs, from a graph's values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.export import ExportedProgram

from portrt import torch_internals
from portrt.errors import PartitionError
from portrt.format import size_expr
from portrt.format.dimensions import DataDependentSize, Dimension
from portrt.format.signature import InputSpec, OutputSpec
from portrt.graphs import symbols
from portrt.graphs.symbols import ProfileRanges


def size_tree(size: Any, known: symbols.Dimensions) -> Any:
    """Return the tree of a size for a spec.

    Raises:
        PartitionError: It has none.
    """
    tree = symbols.tree_of_size(size, known)
    if tree is None:
        raise PartitionError(
            f"the size {size} has no form as an expression tree",
            "integer arithmetic on input sizes",
            "report the model: portrt should have left this node in PyTorch",
        )
    return tree


def dtype_name(value: torch.Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def input_specs(
    inputs: Sequence[torch.fx.Node],
    known: symbols.Dimensions,
    program: ExportedProgram,
    profile_ranges: ProfileRanges,
) -> tuple[InputSpec, ...]:
    """Return the spec of each input.

    Args:
        inputs: Nodes, in call order.
        known: Where each symbolic size can be read off.
        program: The program that the nodes are from.
        profile_ranges: Symbol -> size that engines are tuned for, where it is not the example's.
    """
    specs = []
    for index, node in enumerate(inputs):
        value = node.meta["val"]
        shape = tuple(
            _input_size(size, (index, axis), known, program, profile_ranges)
            for axis, size in enumerate(value.shape)
        )
        specs.append(InputSpec(node.name, dtype_name(value), shape))
    return tuple(specs)


def _input_size(
    size: Any,
    place: tuple[int, int],
    known: symbols.Dimensions,
    program: ExportedProgram,
    profile_ranges: ProfileRanges,
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

    profiles = tuple(
        (within(low), within(opt), within(high))
        for low, opt, high in symbols.ranges_of(expression, profile_ranges)
    )
    wanted = profiles[0][1] if profiles else within(torch_internals.hint_of(size) or least)
    if profiles == ((least, wanted, most),):
        profiles = ()
    return Dimension(least, wanted, most, str(expression), profiles)


def _output_size(size: Any, known: symbols.Dimensions, program: ExportedProgram) -> Any:
    tree = symbols.tree_of_size(size, known)
    if tree is None and symbols.unbacked_symbols([size]):
        _, most = symbols.range_of(size, program.range_constraints)
        most = None if most is None or most > size_expr.MAX_SIZE else most
        return DataDependentSize(most, str(torch_internals.expression_of(size)))
    return size_tree(size, known)


def output_spec(
    node: torch.fx.Node, known: symbols.Dimensions, program: ExportedProgram
) -> OutputSpec:
    """Return the spec of an output; see `input_specs`."""
    value = node.meta["val"]
    shape = tuple(_output_size(size, known, program) for size in value.shape)
    return OutputSpec(node.name, dtype_name(value), shape)
