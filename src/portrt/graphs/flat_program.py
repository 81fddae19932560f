"""Programs with positional tensors for inputs, under the same names or under others."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from torch.export import ExportedProgram, ModuleCallEntry
from torch.export.exported_program import ModuleCallSignature
from torch.export.graph_signature import ExportGraphSignature, InputKind, OutputKind
from torch.utils import _pytree as pytree

from portrt import torch_internals
from portrt.graphs.program_inputs import flat_signature


def flat_program(program: ExportedProgram) -> ExportedProgram:
    """Return the program with one positional argument for each input, of the same names."""
    names, signature = flat_signature(program), program.graph_signature
    outputs = [spec.arg for spec in signature.output_specs if spec.kind is OutputKind.USER_OUTPUT]
    convention = ModuleCallSignature(
        inputs=[spec.arg for spec in signature.input_specs if spec.kind is InputKind.USER_INPUT],
        outputs=outputs,
        in_spec=pytree.tree_structure(((0,) * len(names), {})),
        out_spec=pytree.tree_structure((0,) * len(outputs)),
        forward_arg_names=names,
    )
    found = torch_internals.program_from_graph(
        program,
        program.graph_module,
        program.graph_signature,
        program.state_dict,
        program.constants,
        [ModuleCallEntry("", convention)],
    )
    if program.example_inputs is not None:
        found.example_inputs = (tuple(pytree.tree_leaves(program.example_inputs)), {})
    return torch_internals.with_guards_of(found, None)


def with_input_names(program: ExportedProgram, names: Sequence[str]) -> ExportedProgram:
    """Return the program with positional arguments of other names; its weights are shared.

    Args:
        program: Not modified.
        names: One for each flat input, in order.
    """
    module = copy.deepcopy(program.graph_module)
    before = torch_internals.placeholder_names(program.graph)
    torch_internals.name_placeholders(module.graph, before)
    signature = copy.deepcopy(program.graph_signature)
    nodes = {node.name: node for node in module.graph.nodes}
    renamed = dict(zip(flat_signature(program), names, strict=True))
    for name in set(names) & nodes.keys() - renamed.keys():
        free = f"{name}_before"
        while free in nodes or free in names:
            free += "_"
        renamed[name] = free
    for old, new in renamed.items():
        node = nodes[old]
        node.name = new
        if node.op == "placeholder":
            node.target = new
    _rename_in(signature, renamed)
    module.recompile()
    made = flat_program(
        torch_internals.program_from_graph(
            program, module, signature, program.state_dict, program.constants
        )
    )
    for entry in made.module_call_graph:
        if entry.signature is not None:  # as torch.export leaves it: passes may rename outputs
            entry.signature.outputs.clear()
    return made


def _rename_in(signature: ExportGraphSignature, renamed: dict[str, str]) -> None:
    specs: list[Any] = [*signature.input_specs, *signature.output_specs]
    for spec in specs:
        argument = spec.arg
        argument.name = renamed.get(argument.name, argument.name)
    for result in signature.output_specs:
        if result.target in renamed and result.kind is OutputKind.USER_INPUT_MUTATION:
            result.target = renamed[result.target]
