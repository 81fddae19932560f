"""Tensors and engine calls of a program and of the module that was made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import ExportGraphSignature

from portrt import torch_internals
from portrt.format.manifest import parse
from portrt.graphs import control_flow, nested
from portrt.runtime.calls import engine_calls
from portrt.torch_internals.programs import renew_forward

# A block's name -> the indices of the blobs that its call keeps, and its new manifest.
NewCalls = Mapping[str, tuple[Sequence[int], str]]

# What `assemble` calls the image.
_IMAGE = "portrt_weights"


def own_program(program: ExportedProgram) -> ExportedProgram:
    """Return a copy of a program, with a graph of its own and the same tensors."""
    made = torch_internals.program_from_graph(
        program,
        nested.copied(program.graph_module),
        program.graph_signature,
        program.state_dict,
        program.constants,
        list(program.module_call_graph),
    )
    return torch_internals.with_guards_of(made, program)


def image_name(program: ExportedProgram) -> str | None:
    """Return the name of the constant that is the weights image; None if there is none."""
    names = torch_internals.constant_names(program)
    for node in engine_calls(program):
        weights = parse(node.args[2])["weights"]
        if weights is not None:
            return names[node.args[1][weights["blob"]].name]
    return _IMAGE if _IMAGE in program.constants else None


def blob_names(program: ExportedProgram) -> set[str]:
    """Return the names of the constants that are blobs of calls."""
    names = torch_internals.constant_names(program)
    found = {names[blob.name] for node in engine_calls(program) for blob in node.args[1]}
    return found | {_IMAGE}


def state_of(
    program: ExportedProgram, module: torch.fx.GraphModule | None
) -> dict[str, torch.Tensor]:
    """Return the parameters, buffers and constants of a program, as its module has them now."""
    blobs = blob_names(program)
    held = {**program.constants, **program.state_dict}
    found = {}
    for name, tensor in held.items():
        if name in blobs or not isinstance(tensor, torch.Tensor):
            continue
        own = None if module is None else held_by(module, name)
        found[name] = tensor if own is None else own
    return found


def with_state_of(program: ExportedProgram, module: torch.fx.GraphModule) -> ExportedProgram:
    """Return a module's program with the parameters and buffers that the module has now."""
    state = state_of(program, module)
    held = {**program.constants, **program.state_dict}
    if all(tensor is held[name] or _same(tensor, held[name]) for name, tensor in state.items()):
        return program
    made = own_program(program)
    for name, tensor in state.items():
        holder = made.state_dict if name in made.state_dict else made.constants
        holder[name] = tensor
    return made


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.device == b.device and a.dtype == b.dtype and torch.equal(a, b)


def held_by(module: torch.nn.Module, name: str) -> torch.Tensor | None:
    """Return a module's tensor of a dotted name; None if it has none."""
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, torch.Tensor) else None


def assign(module: torch.nn.Module, name: str, tensor: torch.Tensor) -> None:
    """Replace a tensor of a module."""
    path, _, leaf = name.rpartition(".")
    holder = module.get_submodule(path)
    for held in (holder._parameters, holder._buffers):
        if leaf in held:
            held[leaf] = tensor  # type: ignore[assignment]
            return
    setattr(holder, leaf, tensor)


def set_calls(root: torch.nn.Module, calls: NewCalls) -> None:
    """Give the engine calls of a graph, and of the graphs inside it, other manifests."""
    for node in engine_calls(root):
        found = calls.get(parse(node.args[2])["name"])
        if found is not None:
            kept, text = found
            node.args = (node.args[0], [node.args[1][index] for index in kept], text)
    for module in root.modules():
        if isinstance(module, torch.fx.GraphModule):
            renew_forward(module)


def drop_blobs(program: ExportedProgram) -> None:
    """Remove the blobs that no call of a program takes any more."""
    control_flow.drop_unused_operands(program.graph_module)
    names = torch_internals.constant_names(program)
    unused = {
        node
        for node in program.graph.nodes
        if node.op == "placeholder"
        and names.get(node.name, "").startswith("portrt_block_")
        and not node.users
    }
    gone = {node.name for node in unused}
    signature = program.graph_signature
    specs = [spec for spec in signature.input_specs if spec.arg.name not in gone]
    for node in unused:
        program.graph.erase_node(node)
    program.graph_module.recompile()
    for name in gone:
        del program.constants[names[name]]
    changed = ExportGraphSignature(specs, list(signature.output_specs))
    torch_internals.extend_constants(program, changed, {})
