"""Convert int8 and float8 tensors to float as early as possible, and multiply int8 as int8.

Engines support these dtypes for weights and between a quantizer and its consumer; they neither add
nor transpose them. So a weight is converted before it is transposed, which gives the same values.
"""

from __future__ import annotations

from typing import Any

import torch

from portrt.graphs.quantized_dtypes import LAYOUTS, QUANTIZED

aten = torch.ops.aten
_CONVERT = aten._to_copy.default
_PROMOTING = frozenset({aten.add.Tensor, aten.mul.Tensor, aten.sub.Tensor})


def convert_low_precision_first(graph_module: torch.fx.GraphModule) -> None:
    """Rewrite the graph in place; all values stay bitwise equal."""
    graph = graph_module.graph
    if not any(_dtype(node) in QUANTIZED for node in graph.nodes):
        return
    for node in list(graph.nodes):
        if node.target is aten.sub.Tensor:
            _multiply_signed(graph, node)
        elif node.target in _PROMOTING:
            _convert_operands(graph, node)
    for node in list(graph.nodes):
        if node.target is _CONVERT:
            _convert_first(graph, node)
    graph.eliminate_dead_code()
    graph.lint()
    graph_module.recompile()


def _multiply_signed(graph: torch.fx.Graph, difference: torch.fx.Node) -> None:
    """Rewrite (a + 128 as uint8) @ b - 128 * b.sum(0) as a @ b.

    torchao writes the first form for CPUs, whose int8 kernels take uint8 by int8.
    """
    given: Any = difference.args
    product, rest = given[:2]
    shifted, b = _args_of(product, aten._int_mm.default, 2)
    total, factor = _args_of(rest, aten.mul.Tensor, 2)
    summed, *_ = _args_of(total, aten.sum.dim_IntList, 2)
    unsigned = _args_of(shifted, _CONVERT, 1)[0]
    wide, offset = _args_of(unsigned, aten.add.Tensor, 2)
    a = _args_of(wide, _CONVERT, 1)[0]
    if a is None or summed is not b or (factor, offset) != (128, 128):
        return
    is_exact = (_dtype(a), _dtype(wide), _dtype(shifted)) == (torch.int8, torch.int32, torch.uint8)
    if not is_exact or total.args[1:] != ([0], True) or difference.kwargs or rest.kwargs:
        return
    with graph.inserting_before(difference):
        signed = graph.call_function(aten._int_mm.default, (a, b))
    signed.meta = dict(difference.meta)
    difference.replace_all_uses_with(signed)
    graph.erase_node(difference)


def _args_of(node: Any, target: Any, count: int) -> list[Any]:
    """Return the first `count` arguments of a call of this operator, else as many Nones."""
    fits = isinstance(node, torch.fx.Node) and node.target is target and len(node.args) >= count
    return list(node.args[:count]) if fits else [None] * count


def _convert_operands(graph: torch.fx.Graph, node: torch.fx.Node) -> None:
    """Make the type promotion of a quantized operand an explicit conversion."""
    for operand in node.all_input_nodes:
        if _dtype(operand) in QUANTIZED and _dtype(node) == torch.float32:
            with graph.inserting_before(node):
                wide = _converted(graph, operand, torch.float32, node)
            node.replace_input_with(operand, wide)


def _convert_first(graph: torch.fx.Graph, node: torch.fx.Node) -> None:
    """Rewrite convert(layout(x)) as layout(convert(x)), as far up as the tensor is quantized."""
    dtype: Any = node.kwargs.get("dtype")
    above: Any = node.args[0]
    chain: list[Any] = []
    while above.target in LAYOUTS and _dtype(above) in QUANTIZED:
        chain.append(above)
        above = above.args[0]
    if not chain or dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return
    if set(node.kwargs) - {"dtype"}:
        return
    with graph.inserting_before(node):
        made = _converted(graph, above, dtype, node)
        for layout in reversed(chain):
            below = graph.call_function(layout.target, (made, *layout.args[1:]), layout.kwargs)
            below.meta = {**layout.meta, "val": layout.meta["val"].to(dtype)}
            made = below
    node.replace_all_uses_with(made)
    graph.erase_node(node)


def _converted(
    graph: torch.fx.Graph, source: torch.fx.Node, dtype: torch.dtype, like: torch.fx.Node
) -> torch.fx.Node:
    made = graph.call_function(_CONVERT, (source,), {"dtype": dtype})
    made.meta = {**like.meta, "val": source.meta["val"].to(dtype)}
    return made


def _dtype(node: Any) -> torch.dtype | None:
    value = node.meta.get("val") if isinstance(node, torch.fx.Node) else None
    return value.dtype if isinstance(value, torch.Tensor) else None
