"""Compute bfloat16 in float32, rounding after each operator as PyTorch does on a CPU.

ONNX Runtime's CPU provider answers NOT_IMPLEMENTED to almost every bfloat16 operator; Cast is the
exception, so each operator is put between casts. float16 it computes in float32 without rounding
in between, so the same shows what an engine that rounds would give.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

# Control flow hands tensors on, and computes in the graphs inside it.
_CONTROL_FLOW = {"If", "Loop", "Scan"}

# These move numbers, in any dtype: a weight that is looked up or transposed stays small.
# Tried with ONNX Runtime 1.23 and 1.32, which lack Expand and Where.
_MOVES = {
    *("Concat", "Flatten", "Gather", "GatherElements", "Identity", "Reshape", "Shape", "Slice"),
    *("Split", "Squeeze", "Transpose", "Unsqueeze"),
}
_KEEP = {"Cast", *_CONTROL_FLOW, *_MOVES}


def widen_bfloat16(data: bytes) -> bytes:
    """ModelProto bytes in and out; inputs, outputs and weights keep their dtypes."""
    return widen(data, ir.DataType.BFLOAT16)


def widen_float16(data: bytes) -> bytes:
    """The same for float16."""
    return widen(data, ir.DataType.FLOAT16)


def widen(data: bytes, narrow: ir.DataType) -> bytes:
    """The same for a dtype narrower than float32."""
    import onnx

    model = ir.from_proto(onnx.load_model_from_string(data))
    model = ShapeInferencePass()(model).model
    for node in list(model.graph.all_nodes()):
        if node.op_type not in _KEEP:
            _widen(node, narrow)
    widened: bytes = ir.to_proto(model).SerializeToString()
    return widened


def _widen(node: ir.Node, narrow: ir.DataType) -> None:
    graph = node.graph
    assert graph is not None
    for index, value in enumerate(node.inputs):
        if value is not None and value.dtype == narrow:
            cast = _cast(ir.DataType.FLOAT, value, f"{_name(node, index)}_wide")
            graph.insert_before(node, cast)
            node.replace_input_with(index, cast.outputs[0])
    for index, output in enumerate(list(node.outputs)):
        if output.dtype != narrow:
            continue
        name = output.name or f"{_name(node, index)}_out"
        cast = _cast(narrow, output, name)
        rounded = cast.outputs[0]
        rounded.shape = output.shape
        ir.convenience.replace_all_uses_with(output, rounded, replace_graph_outputs=True)
        cast.replace_input_with(0, output)
        output.dtype = ir.DataType.FLOAT
        output.name, rounded.name = f"{name}_float32", name
        graph.insert_after(node, cast)


def _name(node: ir.Node, index: int) -> str:
    """Of an input or output; the graphs inside a model need names that differ in all of them."""
    return f"{node.name or id(node)}_{index}"


def _cast(dtype: ir.DataType, value: ir.Value, name: str) -> ir.Node:
    return ir.Node(
        "",
        "Cast",
        [value],
        [ir.AttrInt64("to", dtype)],
        outputs=[ir.Value(name=name, type=ir.TensorType(dtype), shape=value.shape)],
    )
