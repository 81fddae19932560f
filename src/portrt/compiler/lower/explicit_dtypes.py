"""Write the dtypes that operators took from torch's default dtype into the graph.

`torch.ones(8)` is in a graph without a dtype, and a quotient of integers has none either: both
follow the default dtype of the process that runs the graph, which need not be that of the process
that captured it. What was recorded is in the values of the nodes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.export import ExportedProgram

from portrt import torch_internals
from portrt.graphs import nested

aten = torch.ops.aten
_CONVERT = aten._to_copy.default
_SELECT_NUMBERS = aten.where.Scalar
# Operators whose first tensor is not one that they compute with.
_CONDITION_FIRST = frozenset({aten.where.ScalarOther, aten.where.ScalarSelf, aten.where.self})


def with_explicit_dtypes(program: ExportedProgram) -> ExportedProgram:
    """Return the program with `explicit_dtypes` applied to it and to the graphs inside it.

    Args:
        program: Not modified; returned as it is if nothing depends on the default dtype.
    """
    if not any(map(_depends, nested.all_nodes(program.graph_module))):
        return program
    module = nested.copied(program.graph_module)
    for inner in nested.graph_modules(module):
        explicit_dtypes(inner)
    return torch_internals.program_from_graph(
        program, module, program.graph_signature, program.state_dict, program.constants
    )


def explicit_dtypes(graph_module: torch.fx.GraphModule) -> None:
    """Name the dtypes of new tensors, and convert integers that are computed with as floats."""
    graph = graph_module.graph
    found = [node for node in graph.nodes if _depends(node)]
    with torch_internals.unguarded():
        for node in found:
            if _is_factory(node):
                node.kwargs = {**node.kwargs, "dtype": node.meta["val"].dtype}
            elif node.target is _SELECT_NUMBERS:
                _select_tensors(graph, node)
            else:
                _convert_operands(graph, node)
    if found:
        graph.lint()
        graph_module.recompile()


def _depends(node: torch.fx.Node) -> bool:
    """Return whether the dtype of a node's result is the default dtype, or was when captured."""
    value = node.meta.get("val")
    if not isinstance(node.target, torch._ops.OpOverload) or not isinstance(value, torch.Tensor):
        return False
    if not (value.dtype.is_floating_point or value.dtype.is_complex):
        return False
    if _is_factory(node):
        return node.kwargs.get("dtype") is None
    if node.target.namespace != "aten" or _names_a_dtype(node):
        return False
    operands = _operands(node)
    return (bool(operands) or node.target is _SELECT_NUMBERS) and not any(
        _value(operand).dtype.is_floating_point or _value(operand).dtype.is_complex
        for operand in operands
    )


def _names_a_dtype(node: torch.fx.Node) -> bool:
    """Return whether a dtype is an argument of the operator, as of conversions."""
    target: Any = node.target
    return any("dtype" in item.name for item in target._schema.arguments)


def _is_factory(node: torch.fx.Node) -> bool:
    """Return whether a node makes a tensor from numbers alone, with a dtype that it may name."""
    target: Any = node.target
    arguments = target._schema.arguments
    takes = {item.name for item in arguments if item.kwarg_only}
    return "dtype" in takes and not any("Tensor" in str(item.type) for item in arguments)


def _operands(node: torch.fx.Node) -> list[torch.fx.Node]:
    """Return the tensors that an operator computes with."""
    args = node.args[1:] if node.target in _CONDITION_FIRST else node.args
    given = [*args, *node.kwargs.values()]
    return [
        item
        for item in given
        if isinstance(item, torch.fx.Node) and isinstance(item.meta.get("val"), torch.Tensor)
    ]


def _value(node: torch.fx.Node) -> torch.Tensor:
    value: torch.Tensor = node.meta["val"]
    return value


def _convert_operands(graph: torch.fx.Graph, node: torch.fx.Node) -> None:
    """Make the promotion of the operands explicit; it comes first in PyTorch, too."""
    dtype = node.meta["val"].dtype
    made: dict[torch.fx.Node, torch.fx.Node] = {}
    with graph.inserting_before(node):
        for operand in _operands(node):
            if operand not in made:
                made[operand] = graph.call_function(_CONVERT, (operand,), {"dtype": dtype})
                made[operand].meta = {**node.meta, "val": _value(operand).to(dtype)}

    def converted(item: Any) -> Any:
        return made.get(item, item) if isinstance(item, torch.fx.Node) else item

    kept = 1 if node.target in _CONDITION_FIRST else 0
    node.args = (*node.args[:kept], *map(converted, node.args[kept:]))
    node.kwargs = {name: converted(item) for name, item in node.kwargs.items()}


def _select_tensors(graph: torch.fx.Graph, node: torch.fx.Node) -> None:
    """Replace the numbers of where(condition, number, number) by tensors of the recorded dtype."""
    condition, *numbers = node.args
    dtype, device = node.meta["val"].dtype, node.meta["val"].device
    made = []
    with graph.inserting_before(node):
        for number in numbers:
            args: tuple[Any, ...] = ([], number)
            kwargs = {"dtype": dtype, "device": device}
            full = graph.call_function(aten.full.default, args, kwargs)
            with torch_internals.fake_mode_of(graph):
                full.meta = {**node.meta, "val": aten.full.default(*args, **kwargs)}
            made.append(full)
    node.target = aten.where.self
    node.args = (condition, *made)
