"""AOTInductor as a compiler of one program, whose trailing inputs become its constants.

torch's public `aoti_compile_and_package` compiles parameters into the package, or leaves them to
the caller; a block has its weights as inputs, of which there may be hundreds in each call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import ExportGraphSignature, InputKind, InputSpec

from portrt.torch_internals.programs import positional_call_graph, program_from_graph


def compile_package(
    program: ExportedProgram,
    examples: Sequence[torch.Tensor],
    constants: Mapping[str, torch.Tensor],
    path: Path,
    config: Mapping[str, Any],
) -> None:
    """Compile a program into a package file.

    Args:
        program: Its inputs are tensors, and are followed by one for each constant; changed.
        examples: An input of each shape, contiguous; a size in a range stays dynamic.
        constants: Name -> tensor, in order.
        path: The file to write; it ends in ".pt2".
        config: Inductor's configuration, by its names.
    """
    from torch._inductor import aoti_compile_and_package

    program = _with_constants(program, constants)
    _make_contiguous(program)
    _call_var_by_keyword(program)
    program._example_inputs = (tuple(examples), {})
    with torch.no_grad():
        aoti_compile_and_package(program, package_path=str(path), inductor_configs=dict(config))


def compile_to_package(
    program: ExportedProgram, path: Path, config: Mapping[str, Any] | None = None
) -> None:
    """Compile a whole program, calls of engines in it included, into a package for C++ or Python.

    Args:
        program: Not changed.
        path: The file to write; it ends in ".pt2".
        config: Inductor's configuration, by its names.
    """
    from torch._inductor import aoti_compile_and_package

    aoti_compile_and_package(program, package_path=str(path), inductor_configs=dict(config or {}))


def load_package(path: Path) -> Any:
    """Return the callable of a package."""
    from torch._inductor import aoti_load_package

    return aoti_load_package(str(path))


def _with_constants(
    program: ExportedProgram, constants: Mapping[str, torch.Tensor]
) -> ExportedProgram:
    """Return the program with its trailing inputs as parameters, which come first."""
    signature = program.graph_signature
    count = len(signature.input_specs) - len(constants)
    inputs, trailing = signature.input_specs[:count], signature.input_specs[count:]
    parameters = [
        InputSpec(InputKind.PARAMETER, spec.arg, name)
        for spec, name in zip(trailing, constants, strict=True)
    ]
    module = program.graph_module
    placeholders = module.graph.find_nodes(op="placeholder")
    for node in placeholders[count:]:
        placeholders[0].prepend(node)
    module.recompile()
    own = ExportGraphSignature([*parameters, *inputs], list(signature.output_specs))
    state = {
        name: torch.nn.Parameter(tensor, requires_grad=False) for name, tensor in constants.items()
    }
    return program_from_graph(program, module, own, state, {}, positional_call_graph(own))


def _make_contiguous(program: ExportedProgram) -> None:
    """Let every input be contiguous, as sessions pass them."""
    for node in program.graph.find_nodes(op="placeholder"):
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor):
            node.meta["val"] = value.contiguous()


def _call_var_by_keyword(program: ExportedProgram) -> None:
    """Let `prims.var` be aten's: Inductor cannot take its correction as a positional argument."""
    for node in program.graph.find_nodes(op="call_function", target=torch.ops.prims.var.default):
        dims, correction = (*node.args[1:], 1)[:2]
        node.target = torch.ops.aten.var.correction
        node.args, node.kwargs = (node.args[0], dims), {"correction": correction}
    program.graph_module.recompile()
