"""Sizes that are symbols, and fake tensors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch


def is_symbolic_call(node: torch.fx.Node) -> bool:
    """Whether a node computes a size (an int, float or bool) rather than tensors."""
    value = node.meta.get("val")
    return isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool, int, float, bool))


def expression_of(size: torch.SymInt | torch.SymFloat | torch.SymBool) -> Any:
    """The sympy expression of a symbolic size, or of what is computed from sizes."""
    return size.node.expr


def hint_of(size: Any) -> int | None:
    """The size that the example had, or None for a size that depends on data."""
    if isinstance(size, int):
        return size
    return int(size.node.hint) if size.node.has_hint() else None


def is_data_dependent(value: Any) -> bool:
    """Whether a fake value has a size that only the data decides (an unbacked symbol)."""
    from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

    return bool(free_unbacked_symbols(value))


def is_unbacked(symbol: Any) -> bool:
    """Whether a symbol stands for a number that only the data decides."""
    from torch.utils._sympy.symbol import SymT, symbol_is_type

    kinds = (SymT.UNBACKED_INT, SymT.UNBACKED_FLOAT)
    return bool(symbol.is_symbol) and symbol_is_type(symbol, kinds)


def fake_mode_of(graph: torch.fx.Graph) -> Any:
    """The mode that the graph's fake tensors belong to."""
    from torch._guards import detect_fake_mode

    return detect_fake_mode([node.meta.get("val") for node in graph.nodes])


@contextlib.contextmanager
def inferring(mode: Any) -> Iterator[None]:
    """Within it, operators are called on fake tensors of `mode`, with symbolic sizes, too.

    Without the Python dispatcher some of torch's own shape functions fail on those.
    """
    from torch._dispatch.python import enable_python_dispatcher

    with mode, enable_python_dispatcher():
        yield
