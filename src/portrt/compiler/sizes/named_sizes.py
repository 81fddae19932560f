"""Dynamic sizes of a program's inputs, by user-visible names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

import torch
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from portrt import torch_internals
from portrt.compiler.inputs import Input
from portrt.graphs import symbols
from portrt.graphs.program_inputs import user_input_nodes


@dataclass(frozen=True)
class NamedSize:
    """A size that is `scale * symbol + offset`.

    Attributes:
        symbol: The program's symbol.
        scale, offset: Integers, with a scale from 1.
        min, opt, max: The symbol's range, with None for an unbounded one, and its value in the
            example inputs.
    """

    symbol: Any
    scale: int
    offset: int
    min: int
    opt: int
    max: int | None


def sizes_by_name(
    program: ExportedProgram,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
) -> dict[str, NamedSize]:
    """Return each dynamic size, as "x[0]" and under its user-defined names.

    Those are the names of `torch.export.Dim`s, where a derived one such as `2 * n` has the name of
    its root, and of `Input(shared_dims=...)`. Sizes that are not linear in one symbol have no name.

    Args:
        program: The exported program.
        args: Its positional example arguments: tensors, `Input`s, or containers of them.
        kwargs: Its keyword example arguments, of the same kinds.
        dynamic_shapes: As `torch.export.export` takes it. A `ShapesCollection` gives no names.
    """
    found: dict[str, NamedSize] = {}
    nodes = user_input_nodes(program)
    for name, node in nodes.items():
        for axis, size in _symbolic(node.meta.get("val")):
            named = _named_size(size, program)
            if named is not None:
                found[f"{name}[{axis}]"] = named
    names_of_axes = _names_of_axes(program, args, kwargs, dynamic_shapes)
    for (name, node), names in zip(nodes.items(), names_of_axes, strict=False):
        for axis, _ in _symbolic(node.meta.get("val")):
            known = found.get(f"{name}[{axis}]")
            if axis in names and known is not None:
                found[names[axis]] = replace(known, scale=1, offset=0)
    return found


def _symbolic(value: Any) -> list[tuple[int, torch.SymInt]]:
    shape: Sequence[Any] = value.shape if isinstance(value, torch.Tensor) else ()
    return [(axis, size) for axis, size in enumerate(shape) if isinstance(size, torch.SymInt)]


def _named_size(size: torch.SymInt, program: ExportedProgram) -> NamedSize | None:
    parts = symbols.linear(torch_internals.expression_of(size))
    if parts is None:
        return None
    symbol, scale, offset = parts
    low, high = symbols.bounds_of(program.range_constraints.get(symbol))
    hint = torch_internals.hint_of(size)
    opt = low if hint is None else (hint - offset) // scale
    return NamedSize(symbol, scale, offset, low, opt, high)


def _names_of_axes(
    program: ExportedProgram,
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
    dynamic_shapes: Any,
) -> list[dict[int, str]]:
    """Return axis -> name for each flat argument, in call order."""
    if program.example_inputs is None:
        return []
    values = [*(args or ()), *((kwargs or {}).get(name) for name in program.example_inputs[1])]
    specs: list[Any] = []
    if isinstance(dynamic_shapes, Mapping):
        names = torch_internals.argument_names(program) or []
        specs = [dynamic_shapes.get(name) for name in names]
    elif isinstance(dynamic_shapes, (tuple, list)):
        specs = list(dynamic_shapes)
    pairs = zip_longest(values, specs[: len(values)])
    return [
        _names(leaf, axes) for value, spec in pairs for leaf, axes in leaves_with_specs(value, spec)
    ]


def leaves_with_specs(value: Any, spec: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each leaf of a value with its part of the specification, which may be incomplete."""
    children, structure = pytree.tree_flatten(value, is_leaf=lambda item: item is not value)
    if structure.is_leaf():
        yield value, spec
        return
    if isinstance(value, Mapping) and isinstance(spec, Mapping):
        specs = [spec.get(name) for name in value]
    else:
        specs = pytree.tree_flatten(spec, is_leaf=lambda item: item is not spec)[0]
    for child, part in zip_longest(children, specs[: len(children)]):
        yield from leaves_with_specs(child, part)


def _names(leaf: Any, axes: Any) -> dict[int, str]:
    found = dict(leaf.shared_dims) if isinstance(leaf, Input) else {}
    if isinstance(axes, (tuple, list)):
        axes = dict(enumerate(axes))
    dims = axes if isinstance(axes, Mapping) else {}
    found |= {a: getattr(d, "root", d).__name__ for a, d in dims.items() if isinstance(d, Dim)}
    return found
