"""Arithmetic on sizes as ONNX computes it: fractions in float64, and divisions that round down.

torch.onnx writes a fraction as float32, multiplies it by int64 numbers, and divides integers by
ONNX's Div, which rounds to zero (seen in torch 2.13). Python computes in float64 and rounds down.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import torch

from portrt import torch_internals
from portrt.graphs import symbols

aten = torch.ops.aten

_NAMES: Mapping[Any, str] = {
    operator.add: "Add",
    operator.sub: "Sub",
    operator.mul: "Mul",
    operator.truediv: "Div",
    operator.pow: "Pow",
    operator.neg: "Neg",
    torch.sym_float: "Identity",
    torch.sym_max: "Max",
    torch.sym_min: "Min",
    math.floor: "Floor",
    math.ceil: "Ceil",
    math.trunc: "Trunc",
    round: "Round",
}
# Overload that takes a number -> those that take a tensor instead.
_OF_TENSORS = {"Scalar": ("Tensor",), "Tensor_Scalar": ("Tensor_Tensor",)}


def exact_sizes(graph_module: torch.fx.GraphModule, ranges: Mapping[Any, Any]) -> None:
    """Rewrite the arithmetic on sizes of a graph in place, for the translations of this module.

    Args:
        graph_module: Its nodes have fake values, which distinguish sizes from tensors.
        ranges: Symbol -> ValueRanges of the program that the graph is from.
    """
    graph = graph_module.graph
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        if isinstance(node.target, torch._ops.OpOverload):
            _take_tensors(graph, node)
        elif _is_integer(node) and any(map(_is_fraction, node.all_input_nodes)):
            with graph.inserting_before(node):
                made = graph.call_function(fraction_of_sizes, (_formula(node),))
            made.meta = dict(node.meta)
            _replace(graph, node, made)
        elif node.target is operator.floordiv and _may_be_negative(node.args[0], ranges):
            _divide_exactly(graph, node)
    for node in reversed(list(graph.nodes)):
        if node.op == "call_function" and _is_fraction(node) and not node.users:
            graph.erase_node(node)


def _is_integer(node: torch.fx.Node) -> bool:
    return isinstance(node.meta.get("val"), torch.SymInt)


def _is_fraction(node: Any) -> bool:
    return isinstance(node, torch.fx.Node) and isinstance(node.meta.get("val"), torch.SymFloat)


def _replace(graph: torch.fx.Graph, node: torch.fx.Node, made: torch.fx.Node) -> None:
    node.replace_all_uses_with(made)
    graph.erase_node(node)
    made.name = node.name


def _take_tensors(graph: torch.fx.Graph, node: torch.fx.Node) -> None:
    """Give an operator a tensor for each fraction, of the dtype that it computes in."""
    fractions = [source for source in node.all_input_nodes if _is_fraction(source)]
    for source in fractions:
        dtype = _dtype_for(node)
        with graph.inserting_before(node):
            made = graph.call_function(fraction_of_sizes, (_formula(source), dtype))
        mode = torch_internals.fake_mode_of(graph)
        with mode:
            made.meta = {**source.meta, "val": aten.scalar_tensor.default(0.0, dtype=dtype)}
        node.replace_input_with(source, made)
    target: Any = node.target
    if fractions and target._overloadname in _OF_TENSORS:
        known = target.overloadpacket.overloads()
        wanted = [name for name in _OF_TENSORS[target._overloadname] if name in known]
        node.target = getattr(target.overloadpacket, wanted[0]) if wanted else target


def _dtype_for(node: torch.fx.Node) -> torch.dtype:
    if node.target is aten.scalar_tensor.default:
        return torch.float64  # it converts it
    values = [source.meta.get("val") for source in node.all_input_nodes]
    for value in (*values, node.meta.get("val")):
        if isinstance(value, torch.Tensor) and value.dtype.is_floating_point:
            return value.dtype
    return torch.float32


def _formula(node: Any) -> Any:
    """Return [name, argument, ...] of a fraction, down to integer sizes and numbers.

    Raises:
        NotImplementedError: There is no such formula.
    """
    if not isinstance(node, torch.fx.Node):
        return node
    fractions = [source for source in node.all_input_nodes if _is_fraction(source)]
    if _is_integer(node) and not fractions:
        return node
    if node.target not in _NAMES or node.kwargs or len(node.args) > 2:
        raise NotImplementedError(f"{node.target} of a fraction of sizes")
    return [_NAMES[node.target], *map(_formula, node.args)]


def _may_be_negative(size: Any, ranges: Mapping[Any, Any]) -> bool:
    if not isinstance(size, torch.fx.Node):
        return bool(size < 0)
    value = size.meta.get("val")
    if not isinstance(value, torch.SymInt):
        return False
    known = {**torch_internals.traced_ranges(value), **ranges}
    bounds = torch_internals.bounds(torch_internals.expression_of(value), known)
    return not bounds.lower >= 0


def _divide_exactly(graph: torch.fx.Graph, node: torch.fx.Node) -> None:
    """Subtract the remainder before a division."""
    size, by = node.args
    with graph.inserting_before(node):
        rest = symbols.call(graph, operator.mod, size, by)
        node.args = (symbols.call(graph, operator.sub, size, rest), by)


def fraction_of_sizes(formula: Any, dtype: Any = None) -> Any:
    """Stand for a fraction of sizes in a graph that is about to be translated.

    Args:
        formula: [name of an ONNX operator, argument, ...].
        dtype: dtype of the tensor; None for an integer.
    """
    raise NotImplementedError("it is translated to ONNX, and never run")


@lru_cache(maxsize=1)
def built_in() -> tuple[tuple[Any, Callable[..., Any]], ...]:
    """Return the translation of this module."""
    from onnxscript import ir
    from onnxscript import opset18 as op

    def wide(formula: Any) -> Any:
        if isinstance(formula, (int, float)):
            return op.Constant(value=ir.tensor(float(formula), dtype=ir.DataType.DOUBLE))
        if not isinstance(formula, list):
            return op.Cast(formula, to=int(ir.DataType.DOUBLE))
        name, *arguments = formula
        values = [wide(argument) for argument in arguments]
        if name == "Trunc":
            (value,) = values
            return op.Mul(op.Sign(value), op.Floor(op.Abs(value)))
        return getattr(op, name)(*values)

    def translated(formula: Any, dtype: int | None = None) -> Any:
        if dtype == int(ir.DataType.FLOAT) and _is_quotient(formula):
            # The quotient of two float32 numbers is the same, rounded from float64 or not.
            above, below = (op.Cast(it, to=int(dtype)) for it in formula[1:])
            return op.Div(above, below)
        return op.Cast(wide(formula), to=int(ir.DataType.INT64 if dtype is None else dtype))

    return ((fraction_of_sizes, translated),)


def _is_quotient(formula: Any) -> bool:
    return formula[0] == "Div" and not any(isinstance(it, list) for it in formula[1:])
