"""The inputs that a program is called with, flattened: their names, and random ones that fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputSpec, TensorArgument

from portrt import torch_internals


def flat_signature(program: ExportedProgram) -> list[str]:
    """Name of each flat input, in call order."""
    return [str(name) for name in user_input_nodes(program)]


def random_inputs(program: ExportedProgram, seed: int) -> list[Any]:
    """Flat inputs with the sizes that the program was exported with, reproducible by `seed`.

    Floating-point values are normal; whole numbers are 0 or 1, valid indices of any table; an input
    that is no tensor has the value it was exported with.
    """
    generator = torch.Generator().manual_seed(seed)
    return [_random(node, generator) for node in user_input_nodes(program).values()]


def user_input_nodes(program: ExportedProgram) -> dict[str, torch.fx.Node]:
    """Name of each flat input -> its placeholder, in call order."""
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    names = [
        spec.arg.name
        for spec in program.graph_signature.input_specs
        if spec.kind.name == "USER_INPUT"
    ]
    return {name: nodes[name] for name in names}


def _random(node: torch.fx.Node, generator: torch.Generator) -> Any:
    value = node.meta.get("val")
    if isinstance(value, (torch.SymInt, torch.SymFloat)):
        return torch_internals.hint_of(value)
    if not isinstance(value, torch.Tensor):
        return value
    shape = [torch_internals.hint_of(size) or 1 for size in value.shape]
    return random_tensor(shape, value.dtype, generator)


def random_tensor(
    shape: Sequence[int], dtype: torch.dtype, generator: torch.Generator
) -> torch.Tensor:
    """Normal values; whole numbers are 0 or 1, valid indices of any table."""
    if dtype.is_floating_point or dtype.is_complex:
        return torch.randn(shape, generator=generator).to(dtype)
    return torch.randint(0, 2, shape, generator=generator).to(dtype)


def output_specs(old: ExportedProgram, graph: torch.fx.Graph) -> list[OutputSpec]:
    """The old specs, with the names that the outputs have now."""
    results = graph.output_node().args[0]
    assert isinstance(results, tuple)
    specs = []
    for spec, result in zip(old.graph_signature.output_specs, results, strict=True):
        arg = spec.arg
        if isinstance(arg, TensorArgument) and isinstance(result, torch.fx.Node):
            arg = TensorArgument(result.name)
        specs.append(OutputSpec(spec.kind, arg, spec.target))
    return specs
