"""Fuse the product with a transposed weight: MatMul(x, Transpose(W)) -> FusedMatMul(x, W).

torch.nn.Linear becomes the first form. ONNX Runtime folds the Transpose when it opens the model,
which takes time and a second copy of every weight. Its FusedMatMul reads the weight in place.
Source: ONNX Runtime, docs/ContribOperators.md, com.microsoft.FusedMatMul.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

DOMAIN = "com.microsoft"


def fuse_transposed_matmul(model: ir.Model) -> bool:
    """Fuse weights of rank 2 in float32, or in bfloat16 that is cast to float32.

    Args:
        model: Changed in place.

    Returns:
        Whether anything was changed.
    """
    fused = [_fuse(node) for node in list(model.graph.all_nodes()) if node.op_type == "MatMul"]
    if not any(fused):
        return False
    model.opset_imports[DOMAIN] = 1
    RemoveUnusedNodesPass()(model)
    return True


def _fuse(node: ir.Node) -> bool:
    weight = _transposed_weight(node.inputs[1], ir.DataType.FLOAT) or _converted_weight(node)
    if weight is None or node.graph is None or node.domain:
        return False
    fused = ir.Node(
        DOMAIN, "FusedMatMul", [node.inputs[0], weight], [ir.AttrInt64("transB", 1)], name=node.name
    )
    fused.metadata_props.update(node.metadata_props)
    old, new = node.outputs[0], fused.outputs[0]
    new.name, new.type, new.shape = old.name, old.type, old.shape
    ir.convenience.replace_nodes_and_values(node.graph, node, [node], [fused], [old], [new])
    return True


def _converted_weight(product: ir.Node) -> ir.Value | None:
    """Return a new Cast(weight) for a product with Cast(Transpose(weight)) from bfloat16."""
    value = product.inputs[1]
    cast = None if value is None else value.producer()
    if cast is None or cast.op_type != "Cast" or product.graph is None:
        return None
    weight = _transposed_weight(cast.inputs[0], ir.DataType.BFLOAT16)
    if weight is None or cast.attributes["to"].as_int() != ir.DataType.FLOAT:
        return None
    made = ir.Node("", "Cast", [weight], cast.attributes.values())
    product.graph.insert_before(product, made)
    return made.outputs[0]


def _transposed_weight(value: ir.Value | None, dtype: ir.DataType) -> ir.Value | None:
    """Return the weight of this dtype behind `Transpose(perm=[1, 0])`, else None."""
    producer = None if value is None else value.producer()
    if producer is None or producer.op_type != "Transpose":
        return None
    weight, perm = producer.inputs[0], producer.attributes.get("perm")
    if weight is None or weight.const_value is None or not weight.is_initializer():
        return None
    fits = weight.const_value.dtype == dtype and len(weight.const_value.shape) == 2
    return weight if fits and perm is not None and list(perm.as_ints()) == [1, 0] else None
