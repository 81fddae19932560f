"""Give attention the shapes that its ONNX operator takes, so that it stays one node.

torch.onnx translates scaled_dot_product_attention of rank 4 only. ONNX Runtime broadcasts neither
the query axis of a mask nor the batch axis of keys and values.
"""

from __future__ import annotations

from typing import Any

import torch

from portrt import torch_internals

aten = torch.ops.aten
_ATTENTION = aten.scaled_dot_product_attention.default
_QUERY, _KEY, _VALUE, _MASK = range(4)


def keep_attention(graph_module: torch.fx.GraphModule) -> None:
    """Rewrite calls of rank 2 and 3, and expand masks, keys and values, around each attention."""
    graph = graph_module.graph
    for node in list(graph.nodes):
        if node.target is _ATTENTION and _value(node.args[_QUERY]).dim() <= 4:
            _rewrite(graph, node)
    graph.lint()
    graph_module.recompile()


def _rewrite(graph: torch.fx.Graph, node: torch.fx.Node) -> None:
    rank = _value(node.args[_QUERY]).dim()
    kwargs = dict(node.kwargs)
    given = [*node.args[:_MASK], node.args[_MASK] if len(node.args) > _MASK else None]
    if given[_MASK] is None:
        given[_MASK] = kwargs.pop("attn_mask", None)
    with graph.inserting_before(node):
        wide = [given[position] for position in range(4)]
        if rank < 4:
            wide = [_with_rank_4(graph, item, rank) for item in wide]
        for position in (_KEY, _VALUE):
            wide[position] = _expanded(graph, wide[position], wide[_QUERY], (0,))
        if wide[_MASK] is not None:
            wide[_MASK] = _expanded(graph, wide[_MASK], wide[_QUERY], (-2,))
        if wide == given:
            return
        args = (*wide, *node.args[_MASK + 1 :])
        found = attention = _call(graph, _ATTENTION, args, kwargs)
        attention.meta = {**node.meta, "val": attention.meta["val"]}
        for axis in (1, 0)[: 4 - rank]:
            found = _call(graph, aten.squeeze.dim, (found, axis))
    node.replace_all_uses_with(found)
    graph.erase_node(node)


def _with_rank_4(graph: torch.fx.Graph, item: Any, rank: int) -> Any:
    """Unsqueeze (N, L, E) to (N, 1, L, E) and (L, E) to (1, 1, L, E); 2-D masks broadcast."""
    if item is None or (_value(item).dim() == 2 and rank == 3):
        return item
    for axis in (1, 0)[: 4 - _value(item).dim()] if rank == 3 else (0, 0):
        item = _call(graph, aten.unsqueeze.default, (item, axis))
    return item


def _expanded(graph: torch.fx.Graph, item: Any, query: Any, axes: tuple[int, ...]) -> Any:
    """Expand the dimensions `axes` of `item` that have size 1 to the sizes of the query."""
    sizes: list[Any] = [-1] * _value(item).dim()
    for axis in axes:
        if _is_one(_value(item).shape[axis]) and not _is_one(_value(query).shape[axis]):
            sizes[axis] = _size(graph, query, axis)
    if all(size == -1 for size in sizes):
        return item
    return _call(graph, aten.expand.default, (item, sizes))


def _is_one(size: Any) -> bool:
    return type(size) is int and size == 1


def _size(graph: torch.fx.Graph, query: Any, axis: int) -> Any:
    size: Any = _value(query).shape[axis]
    if type(size) is int:
        return size
    return _call(graph, aten.sym_size.int, (query, axis % 4))


def _value(node: Any) -> torch.Tensor:
    value: torch.Tensor = node.meta["val"]
    return value


def _call(
    graph: torch.fx.Graph, target: Any, args: Any, kwargs: dict[str, Any] | None = None
) -> torch.fx.Node:
    node = graph.call_function(target, tuple(args), kwargs or {})
    values = torch.fx.node.map_arg((node.args, node.kwargs), lambda it: it.meta["val"])
    with torch_internals.fake_mode_of(graph):  # attention makes tensors, of symbolic sizes
        node.meta["val"] = target(*values[0], **values[1])
    return node
