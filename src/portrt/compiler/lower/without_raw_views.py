"""Replace operators on which torch's decomposition of a program fails.

`run_decompositions` takes no `prims` operator that returns a view, and no `resize_` of an input.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram

from portrt import torch_internals
from portrt.graphs import nested

aten, prims = torch.ops.aten, torch.ops.prims
Node = torch.fx.Node
logger = logging.getLogger(__name__)


def without_raw_views(program: ExportedProgram) -> ExportedProgram:
    """Return the program with `aten` operators instead of these.

    Args:
        program: Not modified; returned as it is if it has none of them.
    """
    if not any(_is_replaced(node) for node in nested.all_nodes(program.graph_module)):
        return program
    module = nested.copied(program.graph_module)
    for graph_module in nested.graph_modules(module):
        graph = graph_module.graph
        for node in [node for node in graph.nodes if _is_replaced(node)]:
            with graph.inserting_before(node):
                if node.target is aten.resize_.default:
                    made = _resized(graph, node)
                else:
                    made = _VIEWS[node.target](graph, *node.args)
            made.meta = {**node.meta, "val": made.meta["val"]}
            node.replace_all_uses_with(made)
            graph.erase_node(node)
            made.name = node.name  # an output is known by its name
        graph.lint()
        graph_module.recompile()
    return torch_internals.program_from_graph(
        program, module, program.graph_signature, program.state_dict, program.constants
    )


def _is_replaced(node: Node) -> bool:
    if node.target is aten.resize_.default:
        source = node.args[0]
        value = node.meta.get("val")
        return (
            isinstance(source, Node)
            and isinstance(value, torch.Tensor)
            and all(isinstance(size, int) for size in (*value.shape, *_shape(source)))
        )
    return node.target in _VIEWS


def _resized(graph: torch.fx.Graph, node: Node) -> Node:
    """Take the first elements, with zeros where there are none: PyTorch leaves them undefined."""
    source: Any = node.args[0]
    sizes: Any = node.args[1]
    # The fake value may have been resized with the tensor that it is of.
    have, need = math.prod(_shape(source)), math.prod(sizes)
    logger.warning(
        "%s is resized in the program, and not in the caller's tensor: its result is a new tensor",
        source.name,
    )
    flat = _call(graph, aten.reshape.default, source, [-1] if have else [0])
    if need < have:
        flat = _call(graph, aten.slice.Tensor, flat, 0, 0, need)
    elif need > have:
        flat = _call(graph, aten.constant_pad_nd.default, flat, [0, need - have], 0)
    made = _call(graph, aten.reshape.default, flat, list(sizes))
    seen = False
    for user in list(graph.nodes):
        if user is node:
            seen = True
        elif seen and source in user.all_input_nodes:
            user.replace_input_with(source, made)
    return made


def _shape(node: Node) -> Sequence[Any]:
    shape: Sequence[Any] = node.meta["val"].shape
    return shape


def _broadcast_in_dim(
    graph: torch.fx.Graph, x: Node, shape: Sequence[Any], dims: Sequence[int]
) -> Node:
    for axis in range(len(shape)):
        if axis not in dims:
            x = _call(graph, aten.unsqueeze.default, x, axis)
    return _call(graph, aten.expand.default, x, list(shape))


def _split_dim(graph: torch.fx.Graph, x: Node, dim: int, outer: Any) -> Node:
    shape = list(_shape(x))
    return _call(graph, aten.unflatten.int, x, dim, [outer, shape[dim] // outer])


_VIEWS: dict[Any, Callable[..., Node]] = {
    prims.broadcast_in_dim.default: _broadcast_in_dim,
    prims.transpose.default: lambda graph, x, dims: _call(graph, aten.permute.default, x, dims),
    prims.squeeze.default: lambda graph, x, dims: _call(graph, aten.squeeze.dims, x, dims),
    prims.collapse_view.default: lambda graph, x, first, last: _call(
        graph, aten.flatten.using_ints, x, first, last
    ),
    prims.split_dim.default: _split_dim,
    prims.view_of.default: lambda graph, x: _call(graph, aten.alias.default, x),
}


def _call(graph: torch.fx.Graph, target: Any, *args: Any) -> Node:
    node = graph.call_function(target, args)
    values = torch.fx.node.map_arg(args, lambda it: it.meta["val"])
    mode = torch_internals.fake_mode_of(graph)
    with torch_internals.inferring(mode):
        node.meta["val"] = target(*values)
    return node
