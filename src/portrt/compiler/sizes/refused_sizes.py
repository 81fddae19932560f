"""Sizes within the ranges of a program that it refuses: by its guards, or as results have others.

torch.export adds a guard where the model compares sizes, and keeps the range that was requested. Of
a slice that begins after the end it computes a negative size without a guard, and of `x[:2]` it
takes 2 for the size where the range begins with 1.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sympy
import torch
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from portrt import torch_internals
from portrt.compiler.sizes.nonzero_sizes import sizes_of_tensors
from portrt.graphs import symbols
from portrt.graphs.program_inputs import user_input_nodes

logger = logging.getLogger(__name__)

_MAX_GUARDS = 3
_SLICE = torch.ops.aten.slice.Tensor
_END = 2**63 - 1  # of a slice without one
# Tried sizes are so far from that of the example: a guard may require multiples of a number.
_DISTANCES = (-8, -6, -4, -3, -2, -1, 1, 2, 3, 4, 6, 8)


@dataclass(frozen=True)
class Refusal:
    """A guard, and inputs that it refuses.

    Attributes:
        guard: The condition, as torch writes it.
        shapes: Input -> shape, of the inputs with dynamic sizes.
        symbol: The symbol that differs from the example inputs; None for several.
        size: Its value.
    """

    guard: str
    shapes: str
    symbol: Any
    size: int


def warn_of_added_guards(program: ExportedProgram, captured: ExportedProgram) -> None:
    """Log the guards of a compiled program that the captured one does not have."""
    known = set(torch_internals.guards_code_of(captured) or ())
    if set(torch_internals.guards_code_of(program) or ()) - known:
        said = {refusal.guard for refusal in refused_sizes(captured)}
        _warn([refusal for refusal in refused_sizes(program) if refusal.guard not in said])


def warn_of_refused_sizes(program: ExportedProgram) -> None:
    """Log the guards that refuse sizes within the program's ranges, each with an example."""
    refused = refused_sizes(program)
    shapes = {refusal.shapes for refusal in refused}
    more = [refusal for refusal in _negative_sizes(program) if refusal.shapes not in shapes]
    _warn([*refused, *more])
    _warn(_other_slices(program), "may refuse")


def _warn(refused: Iterable[Refusal], refuses: str = "refuses") -> None:
    by_guard: dict[str, Refusal] = {}
    for refusal in refused:
        by_guard.setdefault(refusal.guard, refusal)
    for refusal in list(by_guard.values())[:_MAX_GUARDS]:
        logger.warning(
            "the program %s sizes within its ranges, such as %s: torch.export found in the model "
            "that %s",
            refuses,
            refusal.shapes,
            refusal.guard,
        )


def fixed_symbols(program: ExportedProgram) -> set[Any]:
    """Return the symbols of which the guards accept no tried size but that of the example."""
    refused: dict[Any, set[int]] = {}
    for refusal in refused_sizes(program):
        refused.setdefault(refusal.symbol, set()).add(refusal.size)
    tried = _tried_sizes(program, _examples(program))
    return {symbol for symbol, sizes in tried.items() if sizes and sizes == refused.get(symbol)}


def refused_sizes(program: ExportedProgram) -> list[Refusal]:
    """Try the guards at the ends of each range, beside the example, and between.

    Returns:
        The refused ones of the tried sizes; none for a program without guards.
    """
    if not torch_internals.guards_code_of(program) or program.example_inputs is None:
        return []
    try:
        guards = torch_internals.guards_of(program.module())
        base = _examples(program)
        inputs = _Inputs(program, base)
        if guards is None or _failure(guards, inputs.of(base)):
            return []
        found = []
        for symbol, tried in _trials(program, base):
            guard = _failure(guards, inputs.of(tried))
            if guard:
                shapes = _shapes(program, tried)
                found.append(Refusal(guard, shapes, symbol, tried.get(symbol, 0)))
    except (ArithmeticError, TypeError, ValueError, RuntimeError):
        logger.debug("the guards were not tried", exc_info=True)
        return []
    return found


def _negative_sizes(program: ExportedProgram) -> Iterator[Refusal]:
    """Yield the results that have a negative size where a symbol, or all, are the smallest."""
    nodes = [node for node in program.graph.nodes if node.op == "call_function"]
    found = [size for size in sizes_of_tensors(nodes) if isinstance(size, torch.SymInt)]
    sizes = {torch_internals.expression_of(size): size for size in found}
    differences = [size for expression, size in sizes.items() if _has_minus(expression)]
    if not differences or program.example_inputs is None:
        return
    base = _examples(program)
    lowest = {symbol: symbols.bounds_of(program.range_constraints[symbol])[0] for symbol in base}
    trials = [(symbol, {**base, symbol: low}) for symbol, low in lowest.items()]
    for symbol, tried in [*trials, (None, lowest)]:
        for size in differences:
            if _symbols(size) <= base.keys() and _size(size, tried) < 0:
                yield Refusal(f"{size} >= 0", _shapes(program, tried), symbol, tried.get(symbol, 0))


def _other_slices(program: ExportedProgram) -> Iterator[Refusal]:
    """Yield the slices that have another size than in the program, for one of the tried sizes."""
    nodes = [node for node in program.graph.nodes if node.target is _SLICE]
    slices = [node for node in nodes if any(map(_symbols, node.args[0].meta["val"].shape))]
    if not slices or program.example_inputs is None:
        return
    base = _examples(program)
    for node in slices:
        x, dim, start, end, step = _slice(node)
        size, made = x.shape[dim], node.meta["val"].shape[dim]
        used = set().union(*map(_symbols, (size, made, start, end)))
        for symbol, tried in _trials(program, base) if used <= base.keys() else ():
            count = _size(size, tried)
            ends = slice(_size(start, tried), _size(end, tried), step)
            if count >= 0 and len(range(*ends.indices(count))) != _size(made, tried):
                yield Refusal(
                    f"[{start}:{'' if end == _END else end}] of {size} elements has {made} of them",
                    _shapes(program, tried),
                    symbol,
                    tried.get(symbol, 0),
                )
                break


def _slice(node: torch.fx.Node) -> tuple[Any, ...]:
    """Return the tensor, and the dimension, start, end and step, of a call of `aten.slice`."""
    defaults = (None, 0, None, None, 1)
    given = [*node.args, *defaults[len(node.args) :]]
    x, dim, start, end, step = (
        item.meta["val"] if isinstance(item, torch.fx.Node) else item for item in given
    )
    return x, dim, 0 if start is None else start, _END if end is None else end, step


def _has_minus(expression: Any) -> bool:
    return any(part.could_extract_minus_sign() for part in sympy.preorder_traversal(expression))


def _trials(
    program: ExportedProgram, base: Mapping[Any, int]
) -> Iterator[tuple[Any, dict[Any, int]]]:
    """Yield the symbol that differs from the example, or None, and the size of each symbol."""
    tried = _tried_sizes(program, base)
    for symbol, some in tried.items():
        for size in sorted(some):
            yield symbol, {**base, symbol: size}
    ends: tuple[Callable[[Iterable[int]], int], ...] = (min, max)
    for end in ends:
        yield None, {**base, **{symbol: end(some) for symbol, some in tried.items() if some}}


def _tried_sizes(program: ExportedProgram, base: Mapping[Any, int]) -> dict[Any, set[int]]:
    found = {}
    for symbol, example in base.items():
        low, high = symbols.bounds_of(program.range_constraints[symbol])
        near = {example + distance for distance in _DISTANCES} | {2 * example + 1, low, 1}
        if high is not None:
            near |= {high, (low + high) // 2}
        found[symbol] = {
            size for size in near if low <= size and (high is None or size <= high)
        } - {example}
    return found


def _examples(program: ExportedProgram) -> dict[Any, int]:
    """Return the size that each symbol has in the example inputs."""
    found: dict[Any, int] = {}
    for value in torch_internals.user_input_values(program):
        sizes = value.shape if isinstance(value, torch.Tensor) else [value]
        for size in sizes:
            if not isinstance(size, torch.SymInt):
                continue
            parts = symbols.linear(torch_internals.expression_of(size))
            hint = torch_internals.hint_of(size)
            if parts is not None and hint is not None and parts[0] in program.range_constraints:
                symbol, scale, offset = parts
                found.setdefault(symbol, (hint - offset) // scale)
    return found


class _Inputs:
    """Inputs of any sizes for the guards of a program; tensors are on the meta device."""

    def __init__(self, program: ExportedProgram, base: Mapping[Any, int]) -> None:
        flat = pytree.tree_leaves(program.example_inputs)
        values = torch_internals.user_input_values(program)
        self._base = base
        self._values = values
        self._made = [
            _with_sizes(example, value, base) for example, value in zip(flat, values, strict=True)
        ]
        self._places: dict[Any, list[int]] = {}
        for place, value in enumerate(values):
            sizes = value.shape if isinstance(value, torch.Tensor) else [value]
            for symbol in set().union(*(_symbols(size) for size in sizes)):
                self._places.setdefault(symbol, []).append(place)

    def of(self, sizes: Mapping[Any, int]) -> list[Any]:
        """Return inputs of these sizes; what has none of the changed symbols is made once."""
        changed = [symbol for symbol, size in sizes.items() if self._base[symbol] != size]
        made = list(self._made)
        for place in {place for symbol in changed for place in self._places[symbol]}:
            made[place] = _with_sizes(made[place], self._values[place], sizes)
        return made


def _failure(guards: torch.nn.Module, inputs: list[Any]) -> str:
    """Return the guard that refuses the inputs, or ""."""
    try:
        with contextlib.suppress(NameError):  # of guards of arguments that torch has no name for
            guards(*inputs)
    except AssertionError as err:
        return str(err).removeprefix("Guard failed: ")
    return ""


def _with_sizes(example: Any, value: Any, sizes: Mapping[Any, int]) -> Any:
    if isinstance(value, torch.SymInt):
        return _size(value, sizes)
    if not isinstance(value, torch.Tensor):
        return example
    shape = [_size(size, sizes) for size in value.shape]
    return torch.empty(shape, dtype=value.dtype, device="meta")


def _symbols(size: Any) -> set[Any]:
    if not isinstance(size, torch.SymInt):
        return set()
    return set(torch_internals.expression_of(size).free_symbols)


def _size(size: Any, sizes: Mapping[Any, int]) -> int:
    if isinstance(size, int):
        return size
    expression = torch_internals.expression_of(size)
    used = expression.free_symbols & sizes.keys()
    numbers = {symbol: sympy.Integer(sizes[symbol]) for symbol in used}
    return int(expression.xreplace(numbers))


def _shapes(program: ExportedProgram, sizes: Mapping[Any, int]) -> str:
    found = []
    for name, node in user_input_nodes(program).items():
        value = node.meta.get("val")
        shape: Any = value.shape if isinstance(value, torch.Tensor) else ()
        if any(isinstance(size, torch.SymInt) for size in shape):
            found.append(f"{name} {tuple(_size(size, sizes) for size in shape)}")
    return ", ".join(found)
