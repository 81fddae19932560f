"""Compute bfloat16 in float32, rounding after each operator as PyTorch does on a CPU.

ONNX Runtime's CPU provider has kernels for few bfloat16 operators; for the others it returns
NOT_IMPLEMENTED. Cast has one, so each operator is put between casts. float16 it computes in float32
without rounding in between, so the same rewrite simulates an engine that rounds.
"""

from __future__ import annotations

from functools import partial

import onnx_ir as ir

from portrt.compiler.convert.onnx_nodes import ANY, rewritten

# Control flow only passes tensors on; the graphs inside it are widened.
_CONTROL_FLOW = {"If", "Loop", "Scan"}

# These move data and have bfloat16 kernels: a weight that is gathered or transposed stays small.
# Tried with ONNX Runtime 1.23 and 1.32, which have none for Expand and Where.
_MOVES = {
    *("Concat", "Flatten", "Gather", "GatherElements", "Identity", "Reshape", "Shape", "Slice"),
    *("Split", "Squeeze", "Transpose", "Unsqueeze"),
}
_KEEP = {"Cast", *_CONTROL_FLOW, *_MOVES}


def widen_bfloat16(data: bytes) -> bytes:
    """Compute bfloat16 in float32; inputs, outputs and weights keep their dtypes.

    Args:
        data: ModelProto bytes.
    """
    return rewritten(data, [(ANY, partial(widen, dtype=ir.DataType.BFLOAT16))])


def widen_float16(data: bytes) -> bytes:
    """Compute float16 in float32, as `widen_bfloat16` does with bfloat16."""
    return rewritten(data, [(ANY, partial(widen, dtype=ir.DataType.FLOAT16))])


def widen(model: ir.Model, dtype: ir.DataType) -> bool:
    """Compute a half-precision dtype in float32, rounding after each operator.

    Args:
        model: Changed in place.
        dtype: The dtype to compute in float32.
    """
    for node in list(model.graph.all_nodes()):
        if node.op_type not in _KEEP:
            _widen(node, dtype)
    return True


def _widen(node: ir.Node, dtype: ir.DataType) -> None:
    graph = node.graph
    assert graph is not None
    for index, value in enumerate(node.inputs):
        if value is not None and value.dtype == dtype:
            cast = _cast(ir.DataType.FLOAT, value, f"{_name(node, index)}_wide")
            graph.insert_before(node, cast)
            node.replace_input_with(index, cast.outputs[0])
    for index, output in enumerate(list(node.outputs)):
        if output.dtype != dtype:
            continue
        _widen_value(node)
        name = output.name or f"{_name(node, index)}_out"
        cast = _cast(dtype, output, name)
        rounded = cast.outputs[0]
        rounded.shape = output.shape
        ir.convenience.replace_all_uses_with(output, rounded, replace_graph_outputs=True)
        cast.replace_input_with(0, output)
        output.dtype = ir.DataType.FLOAT
        output.name, rounded.name = f"{name}_float32", name
        graph.insert_after(node, cast)


def _widen_value(node: ir.Node) -> None:
    """Give Constant and ConstantOfShape their number in float32."""
    value = node.attributes.get("value")
    if value is not None and value.type == ir.AttributeType.TENSOR:
        wide = ir.tensor(value.as_tensor().numpy().astype("float32"))
        node.attributes["value"] = ir.AttrTensor("value", wide)


def _name(node: ir.Node, index: int) -> str:
    """Return a name for a cast of an input or output, unique over all graphs of the model."""
    return f"{node.name or id(node)}_{index}"


def _cast(dtype: ir.DataType, value: ir.Value, name: str) -> ir.Node:
    return ir.Node(
        "",
        "Cast",
        [value],
        [ir.AttrInt64("to", dtype)],
        outputs=[ir.Value(name=name, type=ir.TensorType(dtype), shape=value.shape)],
    )
