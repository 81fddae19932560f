"""Accumulate running sums and products of float32 in float64, as PyTorch does on a CPU.

A sum that leaves the range of float32 and comes back is finite again, and small terms beside large
ones are not lost. ONNX Runtime accumulates in the dtype of the tensor (seen with 1.32). PyTorch
accumulates half precision in float32, which is how it arrives here: between casts.
"""

from __future__ import annotations

import onnx_ir as ir

from portrt.compiler.convert.onnx_nodes import add_node, cast_source

_FLOAT, _DOUBLE = ir.DataType.FLOAT, ir.DataType.DOUBLE
_HALF = {ir.DataType.FLOAT16, ir.DataType.BFLOAT16}


def accumulate_in_float64(model: ir.Model) -> bool:
    """Rewrite running sums, and the scans that are running products.

    Args:
        model: Changed in place.

    Returns:
        Whether anything was changed.
    """
    found = [node for node in model.graph.all_nodes() if _accumulates(node)]
    for node in found:
        _widen(node)
    return bool(found)


def _accumulates(node: ir.Node) -> bool:
    if node.domain or (node.op_type != "CumSum" and not _is_product(node)):
        return False
    x = node.inputs[-1 if node.op_type == "Scan" else 0]
    source = None if x is None else cast_source(x)
    is_half = source is not None and source.dtype in _HALF
    return x is not None and x.dtype == _FLOAT and not is_half


def _is_product(node: ir.Node) -> bool:
    """Return whether a node is what `aten.cumprod` is translated to."""
    if node.op_type != "Scan" or len(node.inputs) != 2:
        return False
    body = node.attributes["body"].as_graph()
    return [inner.op_type for inner in body] == ["Mul", "Identity"] and not any(
        value not in body.inputs for value in next(iter(body)).inputs
    )


def _widen(node: ir.Node) -> None:
    for index, value in enumerate(node.inputs):
        if value is not None and value.dtype == _FLOAT:
            cast = add_node(node, "Cast", [value], [ir.AttrInt64("to", _DOUBLE)], _DOUBLE)
            node.replace_input_with(index, cast)
    if node.op_type == "Scan":
        body = node.attributes["body"].as_graph()
        for value in (*body.inputs, *(made for inner in body for made in inner.outputs)):
            value.dtype = _DOUBLE
    graph = node.graph
    assert graph is not None
    for output in list(node.outputs):
        back = ir.Node("", "Cast", [None], [ir.AttrInt64("to", _FLOAT)])
        back.metadata_props.update(node.metadata_props)
        narrow, name = back.outputs[0], output.name
        narrow.shape, narrow.dtype = output.shape, _FLOAT
        ir.convenience.replace_all_uses_with(output, narrow, replace_graph_outputs=True)
        back.replace_input_with(0, output)
        output.name, narrow.name, output.dtype = f"{name}_float64", name, _DOUBLE
        graph.insert_after(node, back)
