"""Private APIs of symbolic sizes and fake tensors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch


def is_symbolic_call(node: torch.fx.Node) -> bool:
    """Return whether a node computes a size (an int, float or bool) rather than tensors."""
    value = node.meta.get("val")
    return isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool, int, float, bool))


def expression_of(size: torch.SymInt | torch.SymFloat | torch.SymBool) -> Any:
    """Return the sympy expression of a symbolic size, or of a value computed from sizes."""
    return size.node.expr


def bounds(expression: Any, ranges: Mapping[Any, Any]) -> Any:
    """Return torch's ValueRanges of an expression.

    Args:
        expression: A sympy expression of sizes.
        ranges: Symbol -> its ValueRanges, or its (minimum, maximum).
    """
    from torch.utils._sympy.value_ranges import ValueRanges, bound_sympy

    made = {
        symbol: ValueRanges(*found) if isinstance(found, tuple) else found
        for symbol, found in ranges.items()
    }
    return bound_sympy(expression, made)


def traced_ranges(size: torch.SymInt | torch.SymFloat | torch.SymBool) -> Mapping[Any, Any]:
    """Return symbol -> ValueRanges as tracing had them: from 2 on, whatever range was given."""
    ranges: Mapping[Any, Any] = size.node.shape_env.var_to_range
    return ranges


def hint_of(size: Any) -> int | None:
    """Return the size in the example inputs, or None for a data-dependent size."""
    if isinstance(size, int):
        return size
    return int(size.node.hint) if size.node.has_hint() else None


def is_data_dependent(value: Any) -> bool:
    """Return whether a fake value has a data-dependent size (an unbacked symbol)."""
    from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

    return bool(free_unbacked_symbols(value))


def is_unbacked(symbol: Any) -> bool:
    """Return whether a symbol stands for a data-dependent number."""
    from torch.utils._sympy.symbol import SymT, symbol_is_type

    kinds = (SymT.UNBACKED_INT, SymT.UNBACKED_FLOAT)
    return bool(symbol.is_symbol) and symbol_is_type(symbol, kinds)


def fake_mode_of(graph: torch.fx.Graph) -> Any:
    """Return the mode that the graph's fake tensors belong to."""
    from torch._guards import detect_fake_mode

    return detect_fake_mode([node.meta.get("val") for node in graph.nodes])


@contextlib.contextmanager
def inferring(mode: Any) -> Iterator[None]:
    """Enable calls of operators on fake tensors of `mode`, in a context.

    Without the Python dispatcher some of torch's shape functions fail on symbolic sizes.
    """
    from torch._dispatch.python import enable_python_dispatcher

    with mode, enable_python_dispatcher():
        yield


def origin_of(node: torch.fx.Node) -> str:
    """Return the name of the node that a node of a decomposed program comes from, or "".

    After several decompositions in turn it is a node of the first program.
    """
    made_of = node.meta.get("from_node") or ()
    return _root_name(made_of[-1]) if made_of else ""


def traced_node() -> str:
    """Return the name of the node whose call is being traced by a decomposition, or ""."""
    from torch.fx.traceback import get_current_meta

    made_of = get_current_meta().get("from_node") or ()
    return _root_name(made_of[-1]) if made_of else ""


def _root_name(source: Any) -> str:
    while source.from_node:
        source = source.from_node[-1]
    return str(source.name)
