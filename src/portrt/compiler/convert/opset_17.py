"""Downgrade opset 18 to 17, the newest that TensorRT 8.6 reads. torch.onnx writes 18 or newer.

In opset 18 the axes of reductions became an input, Split got `num_outputs`, and Resize and Pad new
attributes and inputs. Nodes that use the new features have no form at 17.
Source: the ONNX operator changelog, "Version 18 of the default ONNX operator set".

Shape with `start` or `end`, which opset 15 added, is written as a Slice of the full Shape: the
parser of TensorRT 8.6 ignores both attributes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from portrt.compiler.convert.origins import fx_name

if TYPE_CHECKING:
    import onnx_ir

# Not ReduceSum: its axes have been an input since opset 13.
_REDUCTIONS = (
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSumSquare",
)
_END = 2**63 - 1
_NEW_AT_18 = (
    "BitwiseAnd",
    "BitwiseNot",
    "BitwiseOr",
    "BitwiseXor",
    "CenterCropPad",
    "Col2Im",
    "GroupNormalization",
    "Mish",
)


def to_opset_17(model: onnx_ir.Model) -> None:
    """Rewrite a model of opset 18 in place.

    Raises:
        ValueError: A node has no form at opset 17; the message names it.
    """
    for node in list(model.graph.all_nodes()):
        if node.domain not in ("", "ai.onnx"):
            continue
        if node.op_type in _NEW_AT_18:
            raise _no_form(node)
        change = _CHANGES.get(node.op_type)
        if change is not None:
            change(node)
    model.opset_imports[""] = 17
    for function in model.functions.values():
        function.opset_imports[""] = 17


def _reduction(node: onnx_ir.Node) -> None:
    import onnx_ir

    axes = node.inputs[1] if len(node.inputs) > 1 else None
    noop = node.attributes.pop("noop_with_empty_axes", None)
    if axes is None:
        if noop is not None and noop.as_int():
            raise _no_form(node)
        return
    if axes.const_value is None:
        raise _no_form(node)
    values = [int(value) for value in axes.const_value.numpy().flatten()]
    if not values and noop is not None and noop.as_int():
        raise _no_form(node)
    node.resize_inputs(1)
    if values:
        node.attributes["axes"] = onnx_ir.AttrInt64s("axes", values)


def _split(node: onnx_ir.Node) -> None:
    count = node.attributes.pop("num_outputs", None)
    if count is None:
        return
    axis = node.attributes.get("axis")
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    size = None if shape is None else shape[0 if axis is None else axis.as_int()]
    if not isinstance(size, int) or size % count.as_int():
        raise _no_form(node)  # opset 17 needs explicit sizes for unequal parts


def _resize(node: onnx_ir.Node) -> None:
    antialias = node.attributes.pop("antialias", None)
    policy = node.attributes.pop("keep_aspect_ratio_policy", None)
    stretched = policy is None or policy.as_string() == "stretch"
    if (antialias is not None and antialias.as_int()) or not stretched or "axes" in node.attributes:
        raise _no_form(node)


def _pad(node: onnx_ir.Node) -> None:
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        raise _no_form(node)
    if len(node.inputs) > 3:
        node.resize_inputs(3)


def _scatter(node: onnx_ir.Node) -> None:
    reduction = node.attributes.get("reduction")
    if reduction is not None and reduction.as_string() in ("max", "min"):
        raise _no_form(node)


def _shape(node: onnx_ir.Node) -> None:
    import onnx_ir
    from onnx_ir import convenience

    start, end = node.attributes.pop("start", None), node.attributes.pop("end", None)
    if start is None and end is None:
        return
    source, output = node.inputs[0], node.outputs[0]
    name = output.name or "shape"
    full = onnx_ir.node("Shape", [source], name=f"{node.name}_whole")
    full.outputs[0].name = f"{name}_whole"
    bounds = (0 if start is None else start.as_int(), _END if end is None else end.as_int(), 0)
    constants = [
        onnx_ir.node(
            "Constant",
            [],
            {"value": onnx_ir.tensor([bound], dtype=onnx_ir.DataType.INT64)},
            name=f"{node.name}_{what}",
        )
        for what, bound in zip(("start", "end", "axis"), bounds, strict=True)
    ]
    for what, constant in zip(("start", "end", "axis"), constants, strict=True):
        constant.outputs[0].name = f"{name}_{what}"
    values = [full.outputs[0], *(constant.outputs[0] for constant in constants)]
    part = onnx_ir.node("Slice", values, name=f"{node.name}_part")
    part.outputs[0].name = f"{name}_part"
    convenience.replace_nodes_and_values(
        _graph_of(node), node, [node], [full, *constants, part], [output], part.outputs
    )


def _graph_of(node: onnx_ir.Node) -> onnx_ir.Graph | onnx_ir.Function:
    graph = node.graph
    if graph is None:
        raise _no_form(node)
    return graph


_CHANGES: dict[str, Callable[[onnx_ir.Node], None]] = {
    **dict.fromkeys(_REDUCTIONS, _reduction),
    "Shape": _shape,
    "Split": _split,
    "Resize": _resize,
    "Pad": _pad,
    "ScatterElements": _scatter,
    "ScatterND": _scatter,
}


def _no_form(node: onnx_ir.Node) -> ValueError:
    name = fx_name(node) or node.name
    return ValueError(f"{node.op_type} (translating node %{name} : ) has no form at opset 17")
