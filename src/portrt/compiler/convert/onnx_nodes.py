"""Helpers that replace nodes of an ONNX model, for rewrites of one backend."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

# Changes a model in place, and returns whether it did.
Rewrite = Callable[[ir.Model], bool]

# Of every model: the empty text is in all.
ANY = ("",)

_COUNT = "nodes_put_before"


def cast_source(value: ir.Value) -> ir.Value | None:
    """Return what a value was cast from; None if no Cast made it."""
    made = value.producer()
    return made.inputs[0] if made is not None and made.op_type == "Cast" else None


def add_node(
    before: ir.Node,
    kind: str,
    inputs: Sequence[ir.Value | None],
    attributes: Iterable[ir.Attr] = (),
    dtype: ir.DataType | None = None,
) -> ir.Value:
    """Insert a node before another one, with the same origin in the model.

    Args:
        before: The node to insert before.
        kind: Operator type of the new node.
        inputs: Its inputs.
        attributes: Its attributes.
        dtype: Dtype of its output, if known.

    Returns:
        The output of the new node.
    """
    node = ir.Node("", kind, inputs, attributes)
    # onnx_ir gives unnamed values the same names in a graph and in the branches inside it. The
    # count is stored with the model, for rewrites that come after this one.
    count = int(before.metadata_props.get(_COUNT, 0)) + 1
    before.metadata_props[_COUNT] = str(count)
    node.outputs[0].name = f"{before.outputs[0].name}_before_{count}"
    node.metadata_props.update(before.metadata_props)
    node.metadata_props.pop(_COUNT)
    assert before.graph is not None
    before.graph.insert_before(before, node)
    if dtype is not None:
        node.outputs[0].dtype = dtype
    return node.outputs[0]


def add_constant(before: ir.Node, tensor: ir.TensorProtocol) -> ir.Value:
    """Insert a constant before a node, and return its value."""
    return add_node(before, "Constant", [], [ir.AttrTensor("value", tensor)], tensor.dtype)


def replace_output(node: ir.Node, made: ir.Value) -> None:
    """Give another value the name and the users of a node's only output."""
    old = node.outputs[0]
    made.name, made.type, made.shape = old.name, old.type, old.shape
    old.name = None
    ir.convenience.replace_all_uses_with(old, made, replace_graph_outputs=True)


def replace_node(node: ir.Node, made: ir.Value) -> None:
    """Give another value the name and the users of a node's only output, and remove the node."""
    replace_output(node, made)
    assert node.graph is not None
    node.graph.remove(node, safe=True)


def model_with_shapes(data: bytes) -> ir.Model:
    """Read a model for rewrites, with the dtypes and shapes of its values.

    Args:
        data: ModelProto bytes.
    """
    import onnx

    model: ir.Model = ir.from_proto(onnx.load_model_from_string(data))
    if all(map(_is_known, model.graph.all_nodes())):
        return model
    return ShapeInferencePass()(model).model


def _is_known(node: ir.Node) -> bool:
    """Return whether the dtypes and shapes of a node's outputs are in the model."""
    return all(
        output.dtype is not None and output.shape is not None
        for output in node.outputs
        if output.name
    )


def rewritten(data: bytes, rewrites: Iterable[tuple[Iterable[str], Rewrite]]) -> bytes:
    """Read a model once, rewrite it, and write it if that changed it.

    Args:
        data: ModelProto bytes.
        rewrites: Operators, and a rewrite that does nothing for a model with none of them.
    """
    wanted = [rewrite for kinds, rewrite in rewrites if any(k.encode() in data for k in kinds)]
    if not wanted:
        return data
    model = model_with_shapes(data)
    changed = [rewrite(model) for rewrite in wanted]
    if not any(changed):
        return data
    made: bytes = ir.to_proto(model).SerializeToString()
    return made
