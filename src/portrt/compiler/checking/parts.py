"""Parts of a block as blocks of their own: all its results at once, or one call alone."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import (
    ExportGraphSignature,
    InputKind,
    OutputKind,
    OutputSpec,
    TensorArgument,
)
from torch.utils import _pytree as pytree

from portrt import torch_internals
from portrt.compiler.building.check import Sample
from portrt.compiler.plan import Block
from portrt.errors import PartitionError
from portrt.graphs import nested, symbols
from portrt.graphs.recurrent import keep_recurrent_layers
from portrt.graphs.specs import input_specs, output_spec
from portrt.torch_internals.programs import positional_call_graph
from portrt.weights import storable


def result_nodes(block: Block) -> list[str]:
    """Return the names of the nodes whose values an engine can return, in order."""
    placeholders = [n for n in block.program.graph.nodes if n.op == "placeholder"]
    known = symbols.dimensions_of(placeholders)
    found = []
    for node in block.program.graph.nodes:
        value = node.meta.get("val")
        if node.op != "call_function" or not isinstance(value, torch.Tensor):
            continue
        if value.is_complex() or not storable(value.dtype):
            continue
        try:
            output_spec(node, known, block.program)
        except PartitionError:
            continue
        found.append(node.name)
    return found


def with_results(block: Block, names: Sequence[str]) -> Block:
    """Return the block with the values of other nodes as its outputs."""
    old = block.program
    module = nested.copied(old.graph_module)
    nodes = {node.name: node for node in module.graph.nodes}
    module.graph.output_node().args = (tuple(nodes[name] for name in names),)
    module.recompile()
    signature = ExportGraphSignature(
        old.graph_signature.input_specs,
        [OutputSpec(OutputKind.USER_OUTPUT, TensorArgument(name), None) for name in names],
    )
    program = torch_internals.program_from_graph(
        old, module, signature, {}, {}, positional_call_graph(signature)
    )
    known = symbols.dimensions_of([n for n in module.graph.nodes if n.op == "placeholder"])
    outputs = tuple(output_spec(nodes[name], known, program) for name in names)
    return dataclasses.replace(block, program=program, outputs=outputs)


def operator_of(block: Block, name: str) -> torch.fx.Node:
    """Return the call that a value comes from: that of the tuple for an element of it."""
    node: Any = next(node for node in block.program.graph.nodes if node.name == name)
    while node.target is operator.getitem:
        node = node.args[0]
    found: torch.fx.Node = node
    return found


class _Call(torch.nn.Module):
    """One call of an operator.

    Args:
        target: The operator.
        leaves: Its flat arguments, with `_TENSOR` for tensors.
        spec: Their structure.
    """

    def __init__(self, target: Any, leaves: Sequence[Any], spec: Any) -> None:
        super().__init__()
        self._target, self._leaves, self._spec = target, list(leaves), spec

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        given = iter(tensors)
        leaves = [next(given) if leaf is _TENSOR else leaf for leaf in self._leaves]
        args, kwargs = pytree.tree_unflatten(leaves, self._spec)
        found = self._target(*args, **kwargs)
        return tuple(it for it in pytree.tree_leaves(found) if isinstance(it, torch.Tensor))


_TENSOR = object()


def call_alone(node: torch.fx.Node, values: Mapping[str, Any]) -> tuple[Block, Sample] | None:
    """Return a block of one call, static, with its inputs and outputs; None if it has no form.

    Args:
        node: The call.
        values: Value of each node by its name.
    """
    if not isinstance(node.target, torch._ops.OpOverload):
        return None
    found = torch.fx.map_arg((node.args, dict(node.kwargs)), lambda n: values[n.name])
    leaves, spec = pytree.tree_flatten(found)
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    if not tensors:
        return None
    module = _Call(
        node.target,
        [_TENSOR if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves],
        spec,
    )
    try:
        with torch.no_grad(), keep_recurrent_layers():
            outputs = module(*tensors)
            # Equal tensors would be one input.
            program = torch.export.export(
                module, tuple(tensor.detach().clone() for tensor in tensors)
            )
    except Exception:
        return None
    return _block(node.name, program), Sample(tuple(tensors), outputs)


def _block(name: str, program: ExportedProgram) -> Block:
    nodes = {node.name: node for node in program.graph.nodes}
    names = [
        spec.arg.name
        for spec in program.graph_signature.input_specs
        if spec.kind is InputKind.USER_INPUT
    ]
    inputs = [nodes[name] for name in names]
    known = symbols.dimensions_of(inputs)
    results: Any = program.graph.output_node().args[0]
    return Block(
        name=f"{name} alone",
        program=program,
        weights=(),
        inputs=input_specs(inputs, known, program, {}),
        outputs=tuple(output_spec(node, known, program) for node in results),
        node_count=1,
    )
