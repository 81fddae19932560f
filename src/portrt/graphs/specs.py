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
    """Return the expression tree of a size for a spec.

    Raises:
        PartitionError: The size is no arithmetic on known dimensions.
    """
    return _known(size, symbols.tree_of_size(size, known))


def number_tree(number: Any, known: symbols.Dimensions) -> Any:
    """Return the expression tree of a size, or of a fraction of sizes, for use inside a block.

    Raises:
        PartitionError: It is no arithmetic on known dimensions.
    """
    return _known(number, symbols.tree_of_number(number, known))


def _known(size: Any, tree: Any) -> Any:
    if tree is None:
        raise PartitionError(
            f"the size {size} has no form as an expression tree",
            "arithmetic on input sizes",
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
        known: Symbolic size -> (input, axis) that has it.
        program: The program that the nodes are from.
        profile_ranges: Symbol -> (min, opt, max) in each profile, where it is not the example's.
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
    position: tuple[int, int],
    known: symbols.Dimensions,
    program: ExportedProgram,
    profile_ranges: ProfileRanges,
) -> Any:
    if isinstance(size, int):
        return size
    expression = torch_internals.expression_of(size)
    if known[expression] != position:
        return ["dim", *known[expression]]
    # An expression of earlier dimensions, or else an independent dimension.
    earlier = {key: where for key, where in known.items() if where < position}
    tree = symbols.tree_of_size(size, earlier)
    if tree is not None:
        return tree
    low, high = symbols.range_of(size, program.range_constraints)

    def clamp(wanted: int) -> int:
        return max(low, wanted if high is None else min(wanted, high))

    profiles = tuple(
        (clamp(small), clamp(opt), clamp(large))
        for small, opt, large in symbols.ranges_of(expression, profile_ranges)
    )
    opt = profiles[0][1] if profiles else clamp(torch_internals.hint_of(size) or low)
    if profiles == ((low, opt, high),):
        profiles = ()
    return Dimension(low, opt, high, str(expression), profiles)


def _output_size(size: Any, known: symbols.Dimensions, program: ExportedProgram) -> Any:
    tree = symbols.tree_of_size(size, known)
    if tree is None and symbols.unbacked_symbols([size]):
        _, high = symbols.range_of(size, program.range_constraints)
        high = None if high is None or high > size_expr.MAX_SIZE else high
        return DataDependentSize(high, str(torch_internals.expression_of(size)))
    return size_tree(size, known)


def output_spec(
    node: torch.fx.Node, known: symbols.Dimensions, program: ExportedProgram
) -> OutputSpec:
    """Return the spec of an output; see `input_specs`."""
    value = node.meta["val"]
    shape = tuple(_output_size(size, known, program) for size in value.shape)
    return OutputSpec(node.name, dtype_name(value), shape)
