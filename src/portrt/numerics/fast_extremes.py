"""What `numerics="fast"` leaves open: maxima and minima of tensors with NaN."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from portrt.graphs import nested

# Packets of operators that onnxruntime engines compute without regard to NaN.
_EXTREMES = frozenset(
    f"aten.{name}"
    for name in (
        *("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d", "amax", "amin"),
        *("aminmax", "argmax", "argmin", "index_reduce", "linalg_vector_norm", "max", "max_pool1d"),
        *("max_pool1d_with_indices", "max_pool2d", "max_pool2d_with_indices", "max_pool3d"),
        *("max_pool3d_with_indices", "min", "norm", "scatter_reduce"),
    )
)


def takes_nan(module: torch.fx.GraphModule, arguments: Sequence[Any]) -> bool:
    """Return whether a maximum or minimum in a graph takes NaN, on these arguments.

    Args:
        module: The graph.
        arguments: Values of its placeholders.
    """
    if not any(map(_has_extreme, module.graph.nodes)):
        return False
    watch = _Watch(module)
    with torch.no_grad():
        watch.run(*arguments, enable_io_processing=False)
    return watch.found


class _Watch(torch.fx.Interpreter):
    found = False

    def run_node(self, n: torch.fx.Node) -> Any:
        if _has_extreme(n):
            taken = self.fetch_args_kwargs_from_env(n)
            self.found = self.found or any(map(_has_nan, pytree.tree_leaves(taken)))
        return super().run_node(n)


def _has_extreme(node: torch.fx.Node) -> bool:
    """Return whether a node, or the graphs that it is called with, compute a maximum or minimum."""
    return any(_is_extreme(each) for each in (node, *_nodes_below(node)))


def _nodes_below(node: torch.fx.Node) -> Iterator[torch.fx.Node]:
    owner = node.graph.owning_module
    for given in node.all_input_nodes if owner is not None else ():
        if given.op == "get_attr" and isinstance(
            graph := getattr(owner, str(given.target), None), torch.fx.GraphModule
        ):
            yield from nested.all_nodes(graph)


def _is_extreme(node: torch.fx.Node) -> bool:
    return str(getattr(node.target, "overloadpacket", None)) in _EXTREMES


def _has_nan(value: Any) -> bool:
    return (
        isinstance(value, torch.Tensor) and value.is_floating_point() and bool(value.isnan().any())
    )
