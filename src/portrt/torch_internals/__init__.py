"""Every private torch API that portrt uses, each with the reason.

tests/test_torch_internals.py fails when torch moves one of them.

- The ONNX exporter's parts: `torch.onnx.export` always decomposes, translates and optimizes a
  model, while portrt must know which nodes have a translation before it cuts the graph, and must
  not decompose every block a second time.
- `ExportedProgram`'s attributes: a program whose blocks were replaced is constructed directly, so
  that it keeps the symbols, guards and calling convention that `torch.export` made.
- `torch.fx.passes.utils.fuser_utils`: moves a group of nodes to a submodule.
- The reader of a .pt2 archive: `torch.export.load` has no memory-mapped constants, and unpickles.
- Its writer's `__init__`, which would truncate a file that a program is mapped from.
- The lists of all operators, which `run_decompositions` makes at each call.
- The global variable of the deserializer: threads must take turns.
- AOTInductor: its public loader keeps a file, and copies constants; its public compiler takes
  parameters, while a block has its weights as inputs. tests/engines/test_inductor.py covers it.
- What an operator calls: Python's kernel takes as long as a small engine that C++ runs.
- The shape inference of an index, which fails for several masks.
- Dynamo's side of a backend: where an argument comes from, and its own trace, which a capture
  inside it must not see.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from portrt.torch_internals.calls import (
        call_first,
        compiled_cuda_function,
        current_device_index,
        current_stream_handle,
        empty_strided_on,
        function_of,
        is_capturing,
        is_tracing,
        not_traced,
        nothing_intercepts,
    )
    from portrt.torch_internals.exporter import (
        NEWEST_OPSET,
        Table,
        Translations,
        decomposed_as,
        has_onnx_translation,
        oblivious_to_size_one,
        onnx_call,
        onnx_decompositions,
        onnx_ir_from_program,
        onnx_scan,
        torch_tensor_of,
        torch_translation,
        unguarded,
    )
    from portrt.torch_internals.masked_indices import sizes_of_several_masks
    from portrt.torch_internals.operator_lists import shared_operator_lists
    from portrt.torch_internals.program_reader import read_program, reading_fault
    from portrt.torch_internals.programs import (
        add_guards_of,
        argument_names,
        constant_names,
        extend_constants,
        fuse,
        guards_code_of,
        guards_of,
        name_placeholders,
        placeholder_names,
        program_from_graph,
        run_flat,
        set_guards,
        unchecked_module,
        user_input_values,
        with_constants,
        with_guards_of,
        with_ranges,
        without_torch_noise,
    )
    from portrt.torch_internals.serialization import save_program
    from portrt.torch_internals.values import (
        bounds,
        expression_of,
        fake_mode_of,
        hint_of,
        inferring,
        is_data_dependent,
        is_symbolic_call,
        is_unbacked,
        origin_of,
        traced_node,
        traced_ranges,
    )

__all__ = [
    "NEWEST_OPSET",
    "Table",
    "argument_names",
    "bounds",
    "call_first",
    "compiled_cuda_function",
    "constant_names",
    "current_device_index",
    "current_stream_handle",
    "decomposed_as",
    "empty_strided_on",
    "expression_of",
    "extend_constants",
    "fake_mode_of",
    "function_of",
    "fuse",
    "add_guards_of",
    "guards_code_of",
    "guards_of",
    "Translations",
    "has_onnx_translation",
    "hint_of",
    "inferring",
    "is_capturing",
    "is_data_dependent",
    "is_symbolic_call",
    "is_tracing",
    "is_unbacked",
    "name_placeholders",
    "not_traced",
    "nothing_intercepts",
    "oblivious_to_size_one",
    "onnx_call",
    "onnx_decompositions",
    "onnx_ir_from_program",
    "onnx_scan",
    "origin_of",
    "placeholder_names",
    "program_from_graph",
    "read_program",
    "reading_fault",
    "run_flat",
    "save_program",
    "set_guards",
    "shared_operator_lists",
    "sizes_of_several_masks",
    "torch_tensor_of",
    "torch_translation",
    "traced_node",
    "traced_ranges",
    "unguarded",
    "unchecked_module",
    "user_input_values",
    "with_constants",
    "with_guards_of",
    "with_ranges",
    "without_torch_noise",
]

# A name is looked for in these, in this order: a process that runs a program imports the first
# alone.
_MODULES = (
    *("calls", "values", "program_reader", "serialization", "programs", "operator_lists"),
    *("exporter", "masked_indices"),
)


def __getattr__(name: str) -> Any:
    for module in _MODULES if name in __all__ else ():
        found = import_module(f"portrt.torch_internals.{module}")
        if hasattr(found, name):
            globals()[name] = value = getattr(found, name)
            return value
    raise AttributeError(f"module 'portrt.torch_internals' has no attribute {name!r}")
