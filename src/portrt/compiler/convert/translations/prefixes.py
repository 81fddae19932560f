"""Translations of products and of sums of exponentials of each prefix, as a Scan.

ONNX has neither at the opsets that are written. torch.onnx subtracts the maximum of the whole row
from exponents, which loses every prefix that is far below it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx_ir as ir
import torch
from onnxscript import opset18 as op

from portrt import torch_internals

aten = torch.ops.aten
Body = Callable[[ir.Value, ir.Value], list[ir.Node]]

# Scans of a value so far: constants of their bodies move to the graph around, where names differ.
_COUNT = "portrt_prefixes"


def cumprod(self: Any, dim: int, dtype: int = -1) -> Any:  # noqa: ARG001  (decomposed to a cast)
    """Translate `aten::cumprod` of a tensor that has a dimension."""
    return _prefixes(self, dim, 1, lambda state, item: [ir.Node("", "Mul", [state, item])])


def logcumsumexp(self: Any, dim: int) -> Any:
    """Translate `aten::logcumsumexp` of a tensor that has a dimension."""
    return _prefixes(self, dim, float("-inf"), _log_of_sum)


def _log_of_sum(state: ir.Value, item: ir.Value) -> list[ir.Node]:
    """Add exp(item) to exp(state) relative to the larger one; equal infinities are as far as 0."""
    nodes: list[ir.Node] = []

    def add(kind: str, *inputs: ir.Value) -> ir.Value:
        nodes.append(ir.Node("", kind, inputs))
        return nodes[-1].outputs[0]

    zero, one = (_number(nodes, fill, state.dtype) for fill in (0, 1))
    larger = add("Where", add("Greater", state, item), state, item)
    apart = add("Neg", add("Abs", add("Sub", state, item)))
    apart = add("Where", add("Equal", state, item), zero, apart)
    add("Add", larger, add("Log", add("Add", one, add("Exp", apart))))
    return nodes


def _number(nodes: list[ir.Node], fill: float, dtype: ir.DataType | None) -> ir.Value:
    tensor = ir.tensor(fill, dtype=dtype)
    nodes.append(ir.Node("", "Constant", [], [ir.AttrTensor("value", tensor)]))
    return nodes[-1].outputs[0]


def _prefixes(x: Any, dim: int, first: float, body: Body) -> Any:
    """Scan along a dimension: each result is the next state."""
    axis = dim % len(x.shape)
    row = ir.Shape([size for position, size in enumerate(x.shape) if position != axis])
    start = op.ConstantOfShape(_shape_without(x, axis), value=ir.tensor([first], dtype=x.dtype))
    count = x.meta.get(_COUNT, 0)
    x.meta[_COUNT] = count + 1
    own = f"{x.name}_{count}" if count else x.name
    state, item = (
        ir.Value(name=f"{own}_{name}", shape=row, type=ir.TensorType(x.dtype))
        for name in ("state", "item")
    )
    nodes = body(state, item)
    nodes.append(ir.Node("", "Identity", [nodes[-1].outputs[0]]))
    outputs = [node.outputs[0] for node in nodes[-2:]]
    for index, node in enumerate(nodes):
        node.outputs[0].name = f"{own}_prefix_{index}"
    graph = ir.Graph([state, item], outputs, nodes=nodes, name=f"{own}_prefixes")
    _, found = torch_internals.onnx_call(
        "Scan",
        [start, x],
        2,
        body=graph,
        num_scan_inputs=1,
        scan_input_axes=[axis],
        scan_output_axes=[axis],
    )
    return found


def _shape_without(x: Any, axis: int) -> Any:
    parts = [
        op.Shape(x, start=start, end=end)
        for start, end in ((0, axis), (axis + 1, len(x.shape)))
        if start < end
    ]
    if not parts:
        return op.Constant(value=ir.tensor([], dtype=ir.DataType.INT64))
    return parts[0] if len(parts) == 1 else op.Concat(*parts, axis=0)


TRANSLATIONS: tuple[tuple[Any, Callable[..., Any]], ...] = (
    (aten.cumprod.default, cumprod),
    (aten.logcumsumexp.default, logcumsumexp),
)
