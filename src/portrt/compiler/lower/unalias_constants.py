"""Merge the placeholders of a tensor that a program holds both as a buffer and as a constant.

torch.export lifts a tensor that it finds outside of the module's attributes to a constant, even if
the module has registered it as a buffer too, as the static key-value caches of transformers do. A
write to the constant is then a write to the buffer, which `run_decompositions` refuses.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import ExportGraphSignature, InputKind

from portrt import torch_internals


def unalias_constants(program: ExportedProgram) -> ExportedProgram:
    """Replace constants by the buffers that are the same tensor.

    Args:
        program: Not modified; returned as it is if no constant is a buffer.
    """
    signature = program.graph_signature
    buffers = {
        identity(program.state_dict.get(spec.target, program.constants.get(spec.target))): spec
        for spec in signature.input_specs
        if spec.kind is InputKind.BUFFER
    }
    merged = {
        spec.arg.name: buffers[key].arg.name
        for spec in signature.input_specs
        if spec.kind is InputKind.CONSTANT_TENSOR
        and (key := identity(program.constants.get(spec.target or ""))) in buffers
    }
    if not merged:
        return program
    names = torch_internals.placeholder_names(program.graph)
    graph = torch.fx.Graph()
    copied: dict[torch.fx.Node, torch.fx.Node] = {}
    graph.output(graph.graph_copy(program.graph, copied))
    for node, copy in copied.items():
        copy.name = node.name
    torch_internals.name_placeholders(graph, names)
    by_name = {node.name: node for node in graph.nodes if node.op == "placeholder"}
    for constant, buffer in merged.items():
        by_name[constant].replace_all_uses_with(by_name[buffer])
        graph.erase_node(by_name[constant])
    graph.output_node().meta.update(program.graph.output_node().meta)
    specs = [spec for spec in signature.input_specs if spec.arg.name not in merged]
    dropped = {spec.target for spec in signature.input_specs if spec.arg.name in merged}
    return torch_internals.program_from_graph(
        program,
        torch.fx.GraphModule(program.graph_module, graph),
        ExportGraphSignature(specs, list(signature.output_specs)),
        program.state_dict,
        {name: held for name, held in program.constants.items() if name not in dropped},
    )


def identity(tensor: Any) -> Any:
    """Return what two views of one memory have in common; None for values without memory."""
    if not isinstance(tensor, torch.Tensor) or tensor.numel() == 0:
        return None
    return tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tuple(tensor.stride())
