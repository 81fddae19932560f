"""Symbolic sizes: conversion of torch's sympy expressions to expression trees and graph nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from typing import Any

import sympy
import torch

from portrt import torch_internals
from portrt.errors import PackageError
from portrt.format import size_expr
from portrt.graphs.integer_sizes import Sizes, in_integers, truncating

# A sympy expression that is equal to the size of a dimension -> (input, axis).
Dimensions = Mapping[Any, tuple[int, int]]

# Tree operators on torch's symbolic sizes, which are also their targets as graph nodes.
SYMBOLIC: Mapping[str, Callable[..., Any]] = {
    **size_expr.NUMBERS,
    "max": torch.sym_max,
    "min": torch.sym_min,
}

_FROM_SYMPY: dict[str, Callable[..., Any]] = {
    "Add": lambda *args: ["add", *args],
    "Mul": lambda *args: ["mul", *args],
    "Max": lambda *args: ["max", *args],
    "Min": lambda *args: ["min", *args],
    "FloorDiv": lambda a, b: ["floordiv", a, b],
    "CleanDiv": lambda a, b: ["floordiv", a, b],
    "CeilDiv": lambda a, b: ["mul", -1, ["floordiv", ["mul", -1, a], b]],
    "ModularIndexing": lambda a, b, m: ["mod", ["floordiv", a, b], m],
    "Mod": lambda a, b: ["mod", a, b],
    "PythonMod": lambda a, b: ["mod", a, b],
    "Pow": lambda a, b: ["pow", a, b],
    "PowByNatural": lambda a, b: ["pow", a, b],
    "IntTrueDiv": lambda a, b: ["truediv", a, b],
    "FloatTrueDiv": lambda a, b: ["truediv", a, b],
    "ToFloat": lambda a: ["mul", 1.0, a],
    "Identity": lambda a: a,
    "FloorToInt": lambda a: ["floor", a],
    "CeilToInt": lambda a: ["ceil", a],
    "TruncToInt": lambda a: ["trunc", a],
    "TruncToFloat": lambda a: ["mul", 1.0, ["trunc", a]],
    "RoundToInt": lambda a: ["round", a],
}


def dimensions_of(nodes: Sequence[torch.fx.Node]) -> dict[Any, tuple[int, int]]:
    """Return symbolic size -> (index of the node, axis) for the nodes' fake tensors; first wins."""
    found: dict[Any, tuple[int, int]] = {}
    for index, node in enumerate(nodes):
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor):
            shape: Sequence[Any] = value.shape
            for axis, size in enumerate(shape):
                if isinstance(size, torch.SymInt):
                    found.setdefault(torch_internals.expression_of(size), (index, axis))
    return found


def tree_of_size(size: Any, known: Dimensions) -> size_expr.Tree | None:
    """Return the expression tree of a size over `known` dimensions, or None if there is none."""
    if isinstance(size, int):
        return size
    if not isinstance(size, torch.SymInt):
        return None
    ranges = torch_internals.traced_ranges(size)
    return tree_of_expression(torch_internals.expression_of(size), known, ranges)


def tree_of_expression(
    expression: Any, known: Dimensions, ranges: Mapping[Any, Any] | None = None
) -> size_expr.Tree | None:
    """Return the expression tree of torch's sympy expression of a size, or None.

    Args:
        expression: The expression.
        known: Where to read dimensions.
        ranges: Symbol -> ValueRanges, for the forms of `in_integers` that need them.
    """
    tree = _tree(expression, known)
    if tree is None:
        return None
    tree = in_integers(tree, _sizes(known, ranges or {}))
    return tree if _is_well_formed(tree) else None


def tree_of_number(number: Any, known: Dimensions) -> size_expr.Tree | None:
    """Return the tree of a size, or of a fraction computed from sizes; None if there is none."""
    if not isinstance(number, torch.SymFloat):
        return number if isinstance(number, float) else tree_of_size(number, known)
    tree = _tree(torch_internals.expression_of(number), known)
    if tree is None:
        return None
    tree = in_integers(tree, _sizes(known, torch_internals.traced_ranges(number)))
    return tree if _is_well_formed(["floor", tree]) else None


def _is_well_formed(tree: size_expr.Tree) -> bool:
    try:
        size_expr.check(tree, [1 << 20] * (1 << 16), "a size")
    except PackageError:
        return False
    return True


def _sizes(known: Dimensions, ranges: Mapping[Any, Any]) -> Sizes:
    """Return the range of each dimension. Of the smallest size torch knows too little."""
    positions = {position: expression for expression, position in known.items()}

    def sizes(index: int, axis: int) -> tuple[int, int | None]:
        expression = positions[index, axis]
        if not ranges or not expression.free_symbols <= ranges.keys():
            return 0, None
        return 0, bounds_of(torch_internals.bounds(expression, ranges))[1]

    return sizes


def _tree(expression: Any, known: Dimensions) -> size_expr.Tree | None:
    if expression in known:
        return ["dim", *known[expression]]
    if isinstance(expression, sympy.Symbol):
        return _tree_of_symbol(expression, known)
    if isinstance(expression, sympy.Integer):
        return int(expression)
    if isinstance(expression, sympy.Float):
        return float(expression)
    if isinstance(expression, sympy.Mul):
        factor, rest = expression.as_coeff_Mul(rational=True)
        if not factor.is_Integer:  # s/2 of a size that torch knows to be even
            tree = _tree(rest * factor.p, known)
            return None if tree is None else ["floordiv", tree, int(factor.q)]
    make = _FROM_SYMPY.get(type(expression).__name__)
    arguments = [_tree(argument, known) for argument in expression.args]
    if make is None or any(argument is None for argument in arguments):
        return None
    return make(*arguments)


def _tree_of_symbol(symbol: sympy.Symbol, known: Dimensions) -> size_expr.Tree | None:
    """Return the tree of a symbol from a dimension such as 2*s or s + 1 (derived dims)."""
    for expression, position in known.items():
        parts = linear(expression)
        if parts is not None and parts[0] == symbol:
            _, scale, offset = parts
            tree: size_expr.Tree = ["dim", *position]
            tree = ["add", tree, -offset] if offset else tree
            return ["floordiv", tree, scale] if scale > 1 else tree
    return None


def linear(expression: Any) -> tuple[Any, int, int] | None:
    """Return (symbol, scale, offset) of `scale * symbol + offset`, with a scale from 1, or None."""
    if len(expression.free_symbols) != 1:
        return None
    (symbol,) = expression.free_symbols
    scale = expression.coeff(symbol)
    offset = expression - scale * symbol
    if scale.is_Integer and scale > 0 and offset.is_Integer:
        return symbol, int(scale), int(offset)
    return None


def missing_symbols(size: Any, known: Dimensions) -> set[Any]:
    """Return the symbols of a size that cannot be computed from `known`."""
    if not isinstance(size, (torch.SymInt, torch.SymFloat)):
        return set()
    expression = torch_internals.expression_of(size)
    if expression in known:
        return set()
    return {symbol for symbol in expression.free_symbols if not knows(symbol, known)}


def knows(symbol: Any, known: Dimensions) -> bool:
    """Return whether a symbol can be computed from `known`."""
    return _tree(symbol, known) is not None


def emit(
    graph: torch.fx.Graph, tree: size_expr.Tree, tensors: Sequence[torch.fx.Node]
) -> torch.fx.Node | int | float:
    """Add nodes that compute a tree, at the graph's insertion point.

    Args:
        graph: The graph to add nodes to.
        tree: An expression tree; ["dim", i, axis] is a size of `tensors[i]`.
        tensors: Nodes with fake tensors in their meta.

    Returns:
        The node of the result, or a number.
    """
    if isinstance(tree, (int, float)):
        return tree
    name, *arguments = tree
    if name == "dim":
        index, axis = arguments
        node = graph.call_function(torch.ops.aten.sym_size.int, (tensors[index], axis))
        node.meta["val"] = tensors[index].meta["val"].shape[axis]
        return node
    if name in ("floor", "ceil"):
        return emit(graph, truncating(name, *arguments), tensors)
    parts = [emit(graph, argument, tensors) for argument in arguments]
    target = SYMBOLIC[name]
    if size_expr.OPERATORS[name][1] == 0:
        return reduce(lambda left, right: call(graph, target, left, right), parts)
    return call(graph, target, *parts)


def call(graph: torch.fx.Graph, target: Callable[..., Any], *parts: Any) -> torch.fx.Node:
    """Add a node that computes a size from numbers and nodes of sizes."""
    node = graph.call_function(target, parts)
    values = [part.meta["val"] if isinstance(part, torch.fx.Node) else part for part in parts]
    node.meta["val"] = target(*values)
    return node


def range_of(size: torch.SymInt, program_ranges: Mapping[Any, Any]) -> tuple[int, int | None]:
    """Return the smallest and largest value of a size; None if it is unbounded.

    Args:
        size: A symbolic size.
        program_ranges: `ExportedProgram.range_constraints`.
    """
    ranges = {**torch_internals.traced_ranges(size), **program_ranges}
    return bounds_of(torch_internals.bounds(torch_internals.expression_of(size), ranges))


def smallest_in_engine(size: int | torch.SymInt) -> int:
    """Return the smallest value of a size of a traced graph with which an engine is called.

    Tracing has ranges from 2 on, whatever range was given; calls with sizes of 0 run in PyTorch
    where an operator does not take them.
    """
    if isinstance(size, int):
        return size
    low, _ = range_of(size, {})
    return 1 if low <= 2 else low


def bounds_of(bounds: Any) -> tuple[int, int | None]:
    """Return the smallest and largest size in torch's ValueRanges; None if it is unbounded."""
    if bounds is None:
        return 0, None
    return max(0, _bound(bounds.lower, 0) or 0), _bound(bounds.upper, None)


def ranges_of(expression: Any, tuned: ProfileRanges) -> tuple[tuple[int, int, int], ...]:
    """Return (min, opt, max) of a size in each profile; () if it is not known.

    Args:
        expression: A symbol, or an expression of symbols.
        tuned: The ranges of symbols.
    """
    if expression in tuned:
        return tuned[expression]
    found = [(symbol, tuned.get(symbol, ())) for symbol in expression.free_symbols]
    if not found or len({len(ranges) for _, ranges in found}) > 1:
        return ()
    return tuple(
        _range_in_profile(expression, {symbol: ranges[index] for symbol, ranges in found})
        for index in range(len(found[0][1]))
    )


def _range_in_profile(
    expression: Any, tuned: Mapping[Any, tuple[int, int, int]]
) -> tuple[int, int, int]:
    ends = {symbol: (low, high) for symbol, (low, _, high) in tuned.items()}
    bounds = torch_internals.bounds(expression, ends)
    sizes = {symbol: sympy.Integer(opt) for symbol, (_, opt, _) in tuned.items()}
    return int(bounds.lower), int(expression.xreplace(sizes)), int(bounds.upper)


def _bound(value: Any, otherwise: int | None) -> int | None:
    """Convert a bound to an int; infinities and torch's large sentinels mean unbounded."""
    number = sympy.sympify(value)
    if not number.is_Integer or abs(number) >= 2**31:
        return otherwise
    return int(number)


# Symbol of a size -> (min, opt, max) in each optimization profile.
ProfileRanges = Mapping[Any, "tuple[tuple[int, int, int], ...]"]


def unbacked_symbols(sizes: Iterable[Any]) -> set[Any]:
    """Return the unbacked (data-dependent) symbols in sizes and values computed from sizes."""
    return {
        symbol
        for size in sizes
        if isinstance(size, (torch.SymInt, torch.SymFloat, torch.SymBool))
        and torch_internals.is_data_dependent(size)
        for symbol in torch_internals.expression_of(size).free_symbols
        if torch_internals.is_unbacked(symbol)
    }
