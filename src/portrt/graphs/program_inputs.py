"""Flat inputs and output specs of an ExportedProgram."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputSpec, TensorArgument

from portrt.errors import PackageError


def flat_signature(program: ExportedProgram) -> list[str]:
    """Return the names of the flat inputs, in call order."""
    return [str(name) for name in user_input_nodes(program)]


def user_input_nodes(program: ExportedProgram) -> dict[str, torch.fx.Node]:
    """Return name -> placeholder of the flat inputs, in call order.

    Raises:
        PackageError: The program's signature names an input that its graph lacks.
    """
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    names = [
        spec.arg.name
        for spec in program.graph_signature.input_specs
        if spec.kind.name == "USER_INPUT"
    ]
    missing = [name for name in names if name not in nodes]
    if missing:
        raise PackageError(
            f"the program's signature has inputs that its graph lacks: {missing!r:.300}",
            "a placeholder for each input",
            "get the file again from where it was made, or compile the model again",
        )
    return {name: nodes[name] for name in names}


def call_arguments(program: ExportedProgram, flat: Sequence[Any]) -> tuple[Any, Any]:
    """Return args and kwargs of a call from its flat inputs.

    Raises:
        PackageError: The program's input structure is not that of its inputs.
    """
    from torch.utils import _pytree as pytree

    spec = program.call_spec.in_spec
    try:
        args, kwargs = pytree.tree_unflatten(list(flat), spec)
    except Exception as err:
        raise PackageError(
            f"the program's {len(flat)} inputs do not fit its input structure: {err!s:.300}",
            "a structure of arguments and keyword arguments with as many leaves",
            "get the file again from where it was made, or compile the model again",
        ) from err
    return args, kwargs


def check_output_structure(program: ExportedProgram) -> None:
    """Raise PackageError unless a program's output structure has as many leaves as outputs."""
    spec = program.call_spec.out_spec
    outputs = [it for it in program.graph_signature.output_specs if it.kind.name == "USER_OUTPUT"]
    if spec is not None and spec.num_leaves != len(outputs):
        raise PackageError(
            f"the program's {len(outputs)} outputs do not fit its output structure, which has "
            f"{spec.num_leaves}",
            "a structure with a leaf for each output",
            "get the file again from where it was made, or compile the model again",
        )


def output_specs(old: ExportedProgram, graph: torch.fx.Graph) -> list[OutputSpec]:
    """Return the output specs of `old` with the names of the outputs of `graph`."""
    results = graph.output_node().args[0]
    assert isinstance(results, tuple)
    specs = []
    for spec, result in zip(old.graph_signature.output_specs, results, strict=True):
        arg = spec.arg
        if isinstance(arg, TensorArgument) and isinstance(result, torch.fx.Node):
            arg = TensorArgument(result.name)
        specs.append(OutputSpec(spec.kind, arg, spec.target))
    return specs
