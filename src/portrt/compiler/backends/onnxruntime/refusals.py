"""Names of the nodes at fault where ONNX Runtime refuses a model: it names one of them, or none.

ONNX defines operators such as Mish, HardSwish and Gelu by functions of other operators. ONNX
Runtime replaces a call that it has no kernel for by that function, whose nodes have no names.
"""

from __future__ import annotations

import onnx_ir as ir

from portrt.compiler.convert.onnx_nodes import model_with_shapes
from portrt.engines.onnxruntime.native import open_session

_NAMELESS = "node with name ''"
# Of a node without a kernel, and of one with a dtype that its operator does not have.
_OF_DTYPES = ("Could not find an implementation for", "Type Error: Type '")


def nodes_at_fault(message: str, data: bytes) -> tuple[str, ...]:
    """Return the calls of functions that ONNX Runtime refuses alone, too.

    Args:
        message: Why it refuses the model; if it names a node, the result is empty.
        data: ModelProto bytes.
    """

    if _NAMELESS not in message:
        return ()
    model = model_with_shapes(data)
    opset = model.opset_imports.get("", 0)
    nodes = [node for node in model.graph.all_nodes() if _is_function(node, opset)]
    return tuple(str(node.name) for node in nodes if _is_refused(node, opset, (_NAMELESS,)))


def refused_by_dtypes(message: str, data: bytes) -> list[ir.Node]:
    """Return all nodes that are refused for their dtypes, if a model is refused for one's.

    Args:
        message: Why ONNX Runtime refuses the model.
        data: ModelProto bytes.
    """
    if not any(text in message for text in _OF_DTYPES):
        return []
    model = model_with_shapes(data)
    opset = model.opset_imports.get("", 0)
    refused: dict[object, bool] = {}
    found = []
    for node in model.graph.all_nodes():
        dtypes = [value and value.dtype for value in node.inputs]
        kind = (node.domain, node.op_type, *dtypes, *sorted(node.attributes))
        if node.domain not in ("", "ai.onnx") or _has_graphs(node):
            continue
        if kind not in refused:
            refused[kind] = _is_refused(node, opset, _OF_DTYPES)
        if refused[kind]:
            found.append(node)
    return found


def _has_graphs(node: ir.Node) -> bool:
    kinds = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
    return any(attribute.type in kinds for attribute in node.attributes.values())


def _is_function(node: ir.Node, opset: int) -> bool:
    import onnx

    if node.domain not in ("", "ai.onnx"):
        return False
    schema = onnx.defs.get_schema(node.op_type, opset)
    return bool(schema.has_function or schema.has_context_dependent_function)


def _is_refused(node: ir.Node, opset: int, texts: tuple[str, ...]) -> bool:
    """Return whether a model of the node alone is refused with a message that has a text."""
    import onnx

    given = {value.name: value for value in node.inputs if value is not None}
    if any(value.dtype is None for value in given.values()):
        return False
    inputs = [
        onnx.helper.make_tensor_value_info(name, int(value.dtype or 0), None)
        for name, value in given.items()
    ]
    outputs = [onnx.helper.make_empty_tensor_value_info(str(out.name)) for out in node.outputs]
    graph = onnx.helper.make_graph([ir.to_proto(node)], "one", inputs, outputs)
    alone = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    alone.ir_version = min(alone.ir_version, 10)
    try:
        open_session(alone.SerializeToString(), (), None, low_memory=True)
    except Exception as err:
        return any(text in str(err) for text in texts)
    return False
