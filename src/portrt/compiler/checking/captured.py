"""The captured program in PyTorch: the reference of the check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind, OutputSpec
from torch.utils import _pytree as pytree

from portrt.compiler.lower.unalias_constants import identity
from portrt.compiler.partition.verdicts import drops_nothing
from portrt.graphs import nested
from portrt.numerics.precise_run import PreciseInterpreter, widened

# Name of a result -> its tensor: "output 0", and "buffer NAME" or "input NAME" where the program
# writes to one.
Results = dict[str, torch.Tensor]

_LABELS = {
    OutputKind.BUFFER_MUTATION: "buffer",
    OutputKind.PARAMETER_MUTATION: "buffer",
    OutputKind.USER_INPUT_MUTATION: "input",
}


def example_inputs(program: ExportedProgram) -> tuple[Any, ...] | None:
    """Return the flat example inputs, or None if the program has none."""
    return (
        None
        if program.example_inputs is None
        else tuple(pytree.tree_leaves(program.example_inputs))
    )


def is_random(program: ExportedProgram) -> bool:
    """Return whether the program draws random numbers."""
    return any(
        isinstance(node.target, torch._ops.OpOverload)
        and torch.Tag.nondeterministic_seeded in node.target.tags
        and not drops_nothing(node)
        for node in nested.all_nodes(program.graph_module)
    )


def run_captured(
    program: ExportedProgram,
    flat: Sequence[Any],
    *,
    precise: bool = False,
    record: dict[str, Any] | None = None,
) -> Results:
    """Run the program; its state and the inputs stay as they are.

    Args:
        program: As captured: its graph may write to buffers and inputs.
        flat: The flat inputs.
        precise: Run in float64.
        record: Takes the value of each node by its name.

    Raises:
        Exception: Whatever an operator raises.
    """
    specs = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
    writes = any(map(_is_mutable, nested.all_nodes(program.graph_module)))
    given = iter(flat)
    values: list[Any] = []
    written: Results = {}
    held: dict[Any, torch.Tensor] = {}  # a tensor may be a buffer and a constant
    for node in program.graph.nodes:
        if node.op != "placeholder":
            continue
        spec = specs[node.name]
        is_input = spec.kind is InputKind.USER_INPUT
        value = next(given) if is_input else _held(program, spec.target)
        key = None if is_input else identity(value)
        value = widened(value) if precise else value
        if isinstance(value, torch.Tensor) and writes and spec.kind is not InputKind.PARAMETER:
            value = held.setdefault(key, value.clone()) if key else value.clone()
            written[f"input {node.name}" if is_input else f"buffer {spec.target}"] = value
        values.append(value)
    kind = _Recording if record is not None else _Precise if precise else torch.fx.Interpreter
    interpreter = kind(program.graph_module)
    if isinstance(interpreter, _Recording):
        interpreter.record = record
    with torch.no_grad():
        found = interpreter.run(*values, enable_io_processing=False)
    return {**written, **named_results(program.graph_signature.output_specs, found)}


def named_results(specs: Sequence[OutputSpec], outputs: Sequence[Any]) -> Results:
    """Return the tensors among the outputs of a graph, by the name of the result."""
    found: Results = {}
    index = 0
    for spec, value in zip(specs, outputs, strict=True):
        if spec.kind is OutputKind.USER_OUTPUT:
            name = f"output {index}"
            index += 1
        else:
            name = f"{_LABELS.get(spec.kind, 'other')} {spec.target}"
        if isinstance(value, torch.Tensor):
            found[name] = value
    return found


def _held(program: ExportedProgram, target: str | None) -> Any:
    name = str(target)
    return program.state_dict[name] if name in program.state_dict else program.constants.get(name)


def _is_mutable(node: torch.fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


class _Recording(torch.fx.Interpreter):
    """Keeps the value of each node, as it is when the node has run."""

    record: dict[str, Any] | None = None

    def run_node(self, n: torch.fx.Node) -> Any:
        value = super().run_node(n)
        if self.record is not None and n.op == "call_function":
            self.record[n.name] = pytree.tree_map(_copied, value)
        return value


def record_values(module: torch.fx.GraphModule, arguments: Sequence[Any]) -> Mapping[str, Any]:
    """Run a graph in PyTorch and return the value of each call by the name of its node."""
    interpreter = _Recording(module)
    interpreter.record = {}
    with torch.no_grad():
        interpreter.run(*arguments, enable_io_processing=False)
    return interpreter.record


_Precise = PreciseInterpreter


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, torch.Tensor) else value
