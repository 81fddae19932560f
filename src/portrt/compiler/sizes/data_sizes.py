"""Data-dependent sizes: which operators produce them, and which nodes engines can hold.

In torch such a size is an unbacked symbol. An engine that computes output sizes itself can hold the
operators of `ORIGINS`, and everything that is computed from their results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch

from portrt import torch_internals
from portrt.graphs import symbols
from portrt.graphs.symbols import unbacked_symbols
from portrt.verdict import Verdict

aten = torch.ops.aten

# Verdict on a node that no engine can hold because of such a size.
REFUSED = Verdict.no(
    "unsupported_size",
    "a size of its tensors depends on data",
    "keep the size and mask, as torch.where does, instead of picking elements",
)


def _elements(sizes: Sequence[Any]) -> Any:
    found: Any = 1
    for size in sizes:
        found = found * size
    return found


def _mask_elements(node: torch.fx.Node) -> Any:
    """Return the element count of the mask of an index; None if it has several index tensors."""
    given: Any = node.args[1]
    masks = [item.meta["val"] for item in given if item is not None]
    if len(masks) != 1 or masks[0].dtype != torch.bool or masks[0].dim() == 0:
        return None
    return _elements(masks[0].shape)


def _input_elements(node: torch.fx.Node) -> Any:
    source: Any = node.args[0]
    shape = source.meta["val"].shape
    return _elements(shape) if shape else None  # ONNX's NonZero of a scalar has one row or none


# Operator -> the maximum of the size that a call produces; None for a call that no engine takes.
ORIGINS: Mapping[Any, Callable[[torch.fx.Node], Any]] = {
    aten.nonzero.default: _input_elements,
    aten.index.Tensor: _mask_elements,
    aten._unique2.default: _input_elements,
}


def new_symbols(node: torch.fx.Node) -> set[Any]:
    """Return the symbols in the sizes of a node's results that its arguments lack."""
    taken = {s for source in node.all_input_nodes for s in symbols_of(source.meta.get("val"))}
    return symbols_of(node.meta.get("val")) - taken


def known_symbols(graph: torch.fx.Graph) -> dict[Any, Any]:
    """Return symbol -> its maximum, for the sizes that operators of `ORIGINS` produce."""
    found: dict[Any, Any] = {}
    for node in graph.nodes:
        if node.op == "call_function" and node.target in ORIGINS:
            maximum = ORIGINS[node.target](node)
            if maximum is not None:
                found.update(dict.fromkeys(new_symbols(node), maximum))
    return found


def symbols_of(value: Any) -> set[Any]:
    """Return the unbacked symbols in a node's fake value: a size, a tensor, or several of those."""
    values = value if isinstance(value, (list, tuple)) else [value]
    sizes: list[Any] = [s for v in values if isinstance(v, torch.Tensor) for s in v.shape]
    return unbacked_symbols([*sizes, *values])


def any_data_dependent(tensors: Iterable[torch.Tensor]) -> bool:
    """Return whether one of the tensors has a data-dependent size."""
    return any(bool(symbols_of(tensor)) for tensor in tensors)


def has_computed_size(value: Any) -> bool:
    """Return whether a tensor has a size that is computed from a data-dependent one."""
    sizes: Sequence[Any] = value.shape if isinstance(value, torch.Tensor) else ()
    return any(
        bool(unbacked_symbols([size])) and not torch_internals.expression_of(size).is_symbol
        for size in sizes
    )


def is_computed_in_engine(node: torch.fx.Node, inside: Callable[[torch.fx.Node], bool]) -> bool:
    """Return whether a node computes a data-dependent size from tensors inside the engine only.

    Args:
        node: A node of a graph.
        inside: Predicate: whether a node is in an engine.
    """
    value = node.meta.get("val")
    if not isinstance(value, torch.SymInt) or not unbacked_symbols([value]):
        return False
    return all(
        inside(source)
        for source in node.all_input_nodes
        if unbacked_symbols([source.meta.get("val")])
        or isinstance(source.meta.get("val"), torch.Tensor)
    )


def size_sources(size: torch.fx.Node) -> list[torch.fx.Node]:
    """Return the tensors from whose sizes a node computes a size."""
    found: list[torch.fx.Node] = []
    for source in size.all_input_nodes:
        if isinstance(source.meta.get("val"), torch.Tensor):
            found.append(source)
        else:
            found += size_sources(source)
    return found


def has_tree(size: Any, known: symbols.Dimensions) -> bool:
    """Return whether a number is arithmetic on known dimensions and unbacked symbols."""
    own = dict.fromkeys(unbacked_symbols([size]), (0, 0))
    return symbols.tree_of_number(size, {**known, **own}) is not None
