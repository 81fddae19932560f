"""Rewrite int8 and float8 conversions as QuantizeLinear and DequantizeLinear, for TensorRT.

TensorRT refuses a Cast of these dtypes: "Quantized constant is only allowed before DQ", and "Tensor
has datatype FP8 but is not consumed by ... IDequantizeLayer". With a scale of 1 the two operators
are equal to the conversion. `backends/quantized.py` admits only conversions of values that are in
range, and integers for int8, so that QuantizeLinear does not round where PyTorch truncates.

TensorRT's parser has no MatMulInteger either: the same product of dequantized values is exact in
int8 kernels, and rounded to float32 in others.
"""

from __future__ import annotations

import dataclasses

import onnx_ir as ir

from portrt.compiler.convert.onnx_from_block import OnnxModel
from portrt.compiler.convert.onnx_nodes import add_constant, add_node, replace_output

_QUANTIZED = (ir.DataType.INT8, ir.DataType.FLOAT8E4M3FN)
_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
_LARGEST_FLOAT8 = 448.0
# Operators that only move data.
_LAYOUTS = ("Expand", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")


def explicit_quantization(model: OnnxModel) -> OnnxModel:
    """Rewrite the Casts from and to int8 and float8; the model is returned as it is without any."""
    import onnx
    from onnx_ir.passes.common import RemoveUnusedNodesPass, ShapeInferencePass

    given = ir.from_proto(onnx.load_model_from_string(model.data))
    if not any(node.op_type in ("Cast", "MatMulInteger") for node in given.graph.all_nodes()):
        return model
    graph_model = ShapeInferencePass()(given).model
    rewritten = [_rewrite(node) for node in list(graph_model.graph.all_nodes())]
    if not any(rewritten):
        return model
    RemoveUnusedNodesPass()(graph_model)
    data: bytes = ir.to_proto(graph_model).SerializeToString()
    return dataclasses.replace(model, data=data, nodes=len(graph_model.graph))


def _rewrite(node: ir.Node) -> bool:
    if node.op_type == "MatMulInteger":
        return _product(node)
    if node.op_type != "Cast":
        return False
    source, target = node.inputs[0], ir.DataType(node.attributes["to"].as_int())
    if source is None or source.dtype is None:
        return False
    if source.dtype in _QUANTIZED:
        return _dequantize(node, source, target)
    if target in _QUANTIZED and source.dtype in _FLOATS:
        return _quantize(node, source, target)
    return False


def _quantize(node: ir.Node, source: ir.Value, target: ir.DataType) -> bool:
    """Rewrite a Cast to int8 or float8, fusing the division by a scale and the Clip before it."""
    divided, scale = _division_of(source) if target == ir.DataType.FLOAT8E4M3FN else (None, None)
    if divided is None or scale is None:
        divided, scale = source, add_constant(node, _one(source.dtype))
    made = _linear(node, "QuantizeLinear", divided, scale, target)
    made.dtype = target
    replace_output(node, made)
    return True


def _dequantize(node: ir.Node, source: ir.Value, target: ir.DataType) -> bool:
    """Rewrite a Cast from int8 or float8, fusing the multiplication by a scale after it."""
    wide = target if target in _FLOATS else ir.DataType.FLOAT
    scale, last = _factor_of(node) if target in _FLOATS else (None, node)
    made = _wide(node, source, wide, scale)
    if target not in _FLOATS:
        made = add_node(node, "Cast", [made], [ir.AttrInt64("to", target)], target)
    replace_output(last, made)
    return True


def _product(node: ir.Node) -> bool:
    operands = []
    for value in node.inputs[:2]:
        if value is None or value.dtype != ir.DataType.INT8:
            return False
        operands.append(_wide(node, value, ir.DataType.FLOAT, None))
    product = add_node(node, "MatMul", operands, [], ir.DataType.FLOAT)
    to = [ir.AttrInt64("to", ir.DataType.INT32)]
    replace_output(node, add_node(node, "Cast", [product], to, ir.DataType.INT32))
    return True


def _wide(before: ir.Node, value: ir.Value, dtype: ir.DataType, scale: ir.Value | None) -> ir.Value:
    """Return a quantized value in a float dtype, dequantized above the operators that move it."""
    producer = value.producer()
    if producer is not None and producer.op_type in _LAYOUTS:
        inner = producer.inputs[0]
        assert inner is not None
        operands = [_wide(before, inner, dtype, scale), *producer.inputs[1:]]
        made = add_node(before, producer.op_type, operands, producer.attributes.values(), dtype)
        made.shape = value.shape
        return made
    one = add_constant(before, _one(dtype)) if scale is None else scale
    assert value.dtype is not None
    made = _linear(before, "DequantizeLinear", value, one, value.dtype)
    made.dtype, made.shape = dtype, value.shape
    return made


def _division_of(value: ir.Value) -> tuple[ir.Value | None, ir.Value | None]:
    """Return (x, s) if the value is Clip(x / s) to the range of float8 with a scalar s."""
    clip = value.producer()
    if clip is None or clip.op_type != "Clip" or len(clip.inputs) != 3:
        return None, None
    bounds = [_number(item) for item in clip.inputs[1:]]
    division = None if clip.inputs[0] is None else clip.inputs[0].producer()
    if bounds != [-_LARGEST_FLOAT8, _LARGEST_FLOAT8] or division is None:
        return None, None
    if division.op_type != "Div" or not _is_single(division.inputs[1]):
        return None, None
    return division.inputs[0], division.inputs[1]


def _factor_of(cast: ir.Node) -> tuple[ir.Value | None, ir.Node]:
    """Return (s, product) if the only user of the cast is its product with a scalar s."""
    uses = list(cast.outputs[0].uses())
    if len(uses) == 1 and uses[0].node.op_type == "Mul":
        product = uses[0].node
        other = product.inputs[1 - uses[0].idx]
        if _is_single(other) and not cast.outputs[0].is_graph_output():
            return other, product
    return None, cast


def _is_single(value: ir.Value | None) -> bool:
    return value is not None and value.shape is not None and len(value.shape) == 0


def _number(value: ir.Value | None) -> float | None:
    known = None if value is None else ir.convenience.get_const_tensor(value)
    return None if known is None or known.size != 1 else float(known.numpy().item())


def _one(dtype: ir.DataType | None) -> ir.TensorProtocol:
    return ir.tensor(1.0, dtype=dtype)


def _linear(
    before: ir.Node, kind: str, value: ir.Value, scale: ir.Value, quantized: ir.DataType
) -> ir.Value:
    zero = add_constant(before, ir.tensor(0, dtype=quantized))
    return add_node(before, kind, [value, scale, zero])
