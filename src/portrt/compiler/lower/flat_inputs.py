"""Decompose programs that take objects, such as a key-value cache, with flat tensor inputs.

`run_decompositions` traces a program again and rebuilds the objects of its inputs within the trace,
so their constructors become part of the graph. A transformers cache creates empty tensors there,
and torch fails with "Constant tensor ... is not in the constants dictionary".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.export import ExportedProgram

from portrt import torch_internals
from portrt.graphs.flat_program import flat_program

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
    made = decompose(flat_program(program))
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
