"""Decompose programs that take objects, such as a key-value cache, with flat tensor inputs.

`run_decompositions` traces a program again and rebuilds the objects of its inputs within the trace,
so their constructors become part of the graph. A transformers cache creates empty tensors there,
and torch fails with "Constant tensor ... is not in the constants dictionary".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.export import ExportedProgram, ModuleCallEntry
from torch.export.exported_program import ModuleCallSignature
from torch.export.graph_signature import InputKind, OutputKind
from torch.utils import _pytree as pytree

from portrt import torch_internals
from portrt.graphs.program_inputs import flat_signature

_PLAIN = (tuple, list, dict, None)


def through_flat_inputs(
    program: ExportedProgram, decompose: Callable[[ExportedProgram], ExportedProgram]
) -> ExportedProgram:
    """Call `decompose` on the program, with positional tensors for inputs that are objects.

    Args:
        program: Not modified.
        decompose: Must keep inputs and outputs, as `run_decompositions` does.

    Returns:
        The decomposed program with the calling convention of `program`.
    """
    if program.call_spec.in_spec is None or _is_plain(program.call_spec.in_spec):
        return decompose(program)
    made = decompose(_flat(program))
    found = torch_internals.program_from_graph(
        made,
        made.graph_module,
        made.graph_signature,
        made.state_dict,
        made.constants,
        [entry for entry in program.module_call_graph if entry.fqn == ""],
    )
    found.example_inputs = program.example_inputs
    return torch_internals.with_guards_of(found, program)


def _is_plain(spec: Any) -> bool:
    return spec.type in _PLAIN and all(map(_is_plain, spec.children()))


def _flat(program: ExportedProgram) -> ExportedProgram:
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
