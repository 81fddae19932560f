"""Compute a float32 model in a lower precision, as autocast does in training.

Matrix products and convolutions are computed in the lower precision; sums, norms and functions with
a large range stay in float32; data movement and elementwise operators follow their inputs, and are
in float32 if one of them is. Inputs, outputs and weights keep their dtypes: weights are cast in the
graph, which an engine builder folds, so that the file holds each weight once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from portrt.compiler.convert.onnx_from_block import OnnxModel
from portrt.compiler.convert.origins import Origin

LOWERED = frozenset({"Attention", "Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul"})

# Operators that do not accumulate: they move, select, map or compare single elements. Operators in
# neither list stay in float32: softmax, norms, sums and means, exp, log, pow, sqrt, recurrent
# layers, control flow.
_MOVING = (
    *("Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "GatherND"),
    *("Identity", "Pad", "Reshape", "ReverseSequence", "Slice", "SpaceToDepth", "Split", "Squeeze"),
    *("Tile", "Transpose", "Trilu", "Unsqueeze", "Where"),
)
_SELECTING = (
    *("ArgMax", "ArgMin", "GlobalMaxPool", "Max", "MaxPool", "Min", "ReduceMax", "ReduceMin"),
    *("TopK",),
)
_MAPPING = (
    *("Abs", "Add", "Ceil", "Clip", "Div", "Elu", "Floor", "Gelu", "HardSigmoid", "HardSwish"),
    *("LeakyRelu", "Mish", "Mul", "Neg", "PRelu", "Relu", "Round", "Selu", "Sigmoid", "Sign"),
    *("Sub", "Swish", "Tanh"),
)
_COMPARING = (
    *("Equal", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual", "Shape"),
    *("Size",),
)
FOLLOWING = frozenset((*_MOVING, *_SELECTING, *_MAPPING, *_COMPARING))

# PyTorch operators that stay in float32 although they may be translated to matrix products.
_KEPT_IN_FLOAT32 = frozenset({"aten._fft_c2c", "aten._fft_c2r", "aten._fft_r2c"})

_DTYPES = {"fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}
_LARGEST = {"fp16": 65504.0, "bf16": 3.3e38}
_MASK = 3  # input of Attention whose values may be the lowest float32, or minus infinity


@dataclass(frozen=True)
class AutocastRules:
    """The precision to convert to, and what is excluded from the conversion.

    Attributes:
        precision: "fp16" or "bf16".
        excluded_modules: Patterns of modules that stay in float32, as `ModulePath.match` takes.
        excluded_ops: PyTorch operators that stay in float32, such as "aten.linear".
        excluded_values: Graph nodes and inputs whose values exceed the range of the precision; the
            operators that compute or read them stay in float32.
    """

    precision: str
    excluded_modules: Sequence[str] = ()
    excluded_ops: frozenset[str] = frozenset()
    excluded_values: frozenset[str] = frozenset()

    def excludes(self, origin: Origin | None) -> bool:
        """Return whether ONNX nodes from this operator call stay in float32."""
        if origin is None:
            return False
        names = {origin.operator, origin.operator.rpartition(".")[0]}
        return bool(
            names & (self.excluded_ops | _KEPT_IN_FLOAT32)
            or origin.module.match(self.excluded_modules)
        )


def autocast(
    model: OnnxModel, rules: AutocastRules, largest_weight: Callable[[str], float]
) -> OnnxModel:
    """Convert a model to the lower precision, except for what the rules exclude.

    Args:
        model: ONNX model of a block; not modified.
        rules: The precision and the exclusions.
        largest_weight: Name of an external weight -> its largest finite magnitude.
    """
    import onnx

    ir_model = ir.from_proto(onnx.load_model_from_string(model.data))
    ir_model = ShapeInferencePass()(ir_model).model
    _Autocast(ir_model.graph, rules, model.origins, largest_weight).run()
    data: bytes = ir.to_proto(ir_model).SerializeToString()
    return dataclasses.replace(model, data=data, nodes=len(ir_model.graph))


@dataclass
class _Autocast:
    """Converts a graph in the order of its nodes."""

    graph: ir.Graph
    rules: AutocastRules
    origins: Mapping[str, Origin]
    largest_weight: Callable[[str], float]
    lowered: set[ir.Value] = field(default_factory=set)  # values that were float32
    constant: set[ir.Value] = field(default_factory=set)  # computed from initializers only
    casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = field(default_factory=dict)
    bounded: dict[ir.Value, ir.Value] = field(default_factory=dict)
    magnitudes: dict[ir.Value, float] = field(default_factory=dict)

    def run(self) -> None:
        self.dtype = _DTYPES[self.rules.precision]
        self.constant.update(self.graph.initializers.values())
        for node in list(self.graph):
            inputs = [value for value in node.inputs if value is not None]
            if node.op_type == "Constant" or (inputs and self.constant.issuperset(inputs)):
                self.constant.update(node.outputs)
            if self._is_lowered(node):
                self._lower(node)
            else:
                self._widen(node)
        self._restore_outputs()

    def _is_lowered(self, node: ir.Node) -> bool:
        taken = [v for v in self._cast_inputs(node) if v.dtype == ir.DataType.FLOAT]
        moving = [v for v in self._cast_inputs(node) if v in self.lowered]
        others = [v for v in taken if v not in self.constant]
        if node.domain or self.rules.excludes(self.origins.get(node.name or "")):
            return False
        if any(self._magnitude(v) > _LARGEST[self.rules.precision] for v in taken):
            return False
        if any(self._is_too_large(v) for v in (*others, *node.outputs)):
            return False
        if node.op_type in LOWERED:
            known = {v.dtype for v in self._cast_inputs(node)}
            return bool(taken or moving) and known <= {ir.DataType.FLOAT, self.dtype}
        return node.op_type in FOLLOWING and bool(moving) and not others

    def _is_too_large(self, value: ir.Value) -> bool:
        """Return whether the value exceeded the range of the lower precision on the sample."""
        producer = value.producer()
        origin = None if producer is None else self.origins.get(producer.name or "")
        name = value.name if producer is None else None if origin is None else origin.node
        return name in self.rules.excluded_values

    def _cast_inputs(self, node: ir.Node) -> list[ir.Value]:
        """Return the inputs that have the dtype of the computation."""
        return [
            value
            for index, value in enumerate(node.inputs)
            if value is not None
            and (value.dtype is None or value.dtype.is_floating_point())
            and not (node.op_type == "Attention" and index == _MASK)
        ]

    def _lower(self, node: ir.Node) -> None:
        for index, value in enumerate(node.inputs):
            if value is None or value.dtype != ir.DataType.FLOAT:
                continue
            if node.op_type == "Attention" and index == _MASK:
                value = self._bounded(node, value)
            node.replace_input_with(index, self._cast(node, value, self.dtype))
        for output in node.outputs:
            if output.dtype == ir.DataType.FLOAT:
                output.dtype = self.dtype
                self.lowered.add(output)

    def _bounded(self, node: ir.Node, mask: ir.Value) -> ir.Value:
        """Clamp a mask so that its lowest values are finite in the lower precision."""
        if mask not in self.bounded:
            name = f"{mask.name}_bounded"
            largest = _LARGEST[self.rules.precision]
            lowest = ir.tensor([-largest], dtype=ir.DataType.FLOAT, name=f"{name}_by")
            bound = ir.Value(name=lowest.name, type=ir.TensorType(lowest.dtype), const_value=lowest)
            bound.shape = ir.Shape([1])
            self.graph.register_initializer(bound)
            output = ir.Value(name=name, type=mask.type, shape=mask.shape)
            clamp = ir.Node("", "Max", [mask, bound], outputs=[output], name=f"node_{name}")
            self.graph.insert_before(node, clamp)
            self.bounded[mask] = output
        return self.bounded[mask]

    def _widen(self, node: ir.Node) -> None:
        """Cast the inputs of a node, and of the graphs inside it, back to float32."""
        for index, value in enumerate(node.inputs):
            if value in self.lowered:
                node.replace_input_with(index, self._cast(node, value, ir.DataType.FLOAT))
        for attribute in node.attributes.values():
            for inner in _graphs(attribute):
                for own in inner.all_nodes():
                    for index, value in enumerate(own.inputs):
                        if value in self.lowered:
                            wide = self._cast(node, value, ir.DataType.FLOAT)
                            own.replace_input_with(index, wide)

    def _cast(self, node: ir.Node, value: Any, dtype: ir.DataType) -> ir.Value:
        """Return the value in another dtype; all users share one cast, before the first of them."""
        if value.dtype == dtype:
            return value  # type: ignore[no-any-return]
        known = self.casts.get((value, dtype))
        if known is None:
            cast = _cast_node(value, dtype)
            self.graph.insert_before(node, cast)
            known = self.casts[value, dtype] = cast.outputs[0]
        return known

    def _restore_outputs(self) -> None:
        for index, value in enumerate(self.graph.outputs):
            if value in self.lowered:
                name, value.name = value.name, f"{value.name}_{self.rules.precision}"
                known = self.casts.get((value, ir.DataType.FLOAT))
                if known is None:
                    cast = _cast_node(value, ir.DataType.FLOAT)
                    self.graph.append(cast)
                    known = cast.outputs[0]
                known.name = name
                self.graph.outputs[index] = known

    def _magnitude(self, value: ir.Value) -> float:
        """Return the largest finite magnitude in a constant; 0 for other values."""
        if value not in self.constant:
            return 0.0
        if value not in self.magnitudes:
            self.magnitudes[value] = self._measure(value)
        return self.magnitudes[value]

    def _measure(self, value: ir.Value) -> float:
        producer = value.producer()
        if producer is not None:
            known = [self._magnitude(v) for v in producer.inputs if v is not None]
            return max(known, default=0.0)
        held = value.const_value
        if held is None or value.dtype is None or not value.dtype.is_floating_point():
            return 0.0
        if isinstance(held, ir.ExternalTensor):
            return self.largest_weight(value.name or "")
        return largest_finite(held.numpy())


def largest_finite(array: Any) -> float:
    """Return the largest finite magnitude in a numpy array; 0 if it has no finite element."""
    import numpy as np

    magnitudes = np.abs(array[np.isfinite(array)])
    return float(magnitudes.max()) if magnitudes.size else 0.0


def _graphs(attribute: ir.Attr) -> Sequence[ir.Graph]:
    if attribute.type == ir.AttributeType.GRAPH:
        return [attribute.as_graph()]
    return attribute.as_graphs() if attribute.type == ir.AttributeType.GRAPHS else []


def _cast_node(value: ir.Value, dtype: ir.DataType) -> ir.Node:
    """Make a Cast named after the value, so that conversion is deterministic."""
    label = f"{value.name}_{dtype.name.lower()}"
    output = ir.Value(name=label, type=ir.TensorType(dtype), shape=value.shape)
    return ir.Node(
        "", "Cast", [value], [ir.AttrInt64("to", dtype)], outputs=[output], name=f"node_{label}"
    )
