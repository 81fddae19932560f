"""Plans without a source: traces output shapes from a function that returns empty outputs."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

import torch
from torch.export import ExportedProgram

from portrt import forks, torch_internals
from portrt.compiler.capture import capture
from portrt.compiler.inputs import Input
from portrt.compiler.partition.block import META_TO_DROP
from portrt.compiler.plan import Block, Plan
from portrt.compiler.sizes.tuning import sizes_to_tune_for
from portrt.errors import CaptureError, SettingsError
from portrt.format.dimensions import DataDependentSize
from portrt.format.manifest import DTYPES
from portrt.format.signature import OutputSpec
from portrt.graphs import symbols
from portrt.graphs.specs import dtype_name, input_specs, size_tree
from portrt.graphs.symbols import ProfileRanges
from portrt.prebuilt.bindings import argument_names, check_names

BLOCK = "block_0"

_SCHEMA = "prebuilt_plan(Tensor[] inputs) -> Tensor[]"
_register_lock = forks.renewed(threading.Lock())
_library: Any = None

Function = Callable[..., Any]


class _Outputs:
    """Calls the user's function while it is traced, and keeps the names of its outputs."""

    def __init__(self, function: Function, names: Sequence[str] | None) -> None:
        self.function = function
        self.names = None if names is None else list(names)

    def __call__(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        given = self.function(*inputs)
        if isinstance(given, Mapping):
            self.names = check_names(given, "output")
            given = list(given.values())
        elif isinstance(given, torch.Tensor):
            given = [given]
        tensors = list(given) if isinstance(given, (list, tuple)) else [given]
        if not tensors or not all(isinstance(tensor, torch.Tensor) for tensor in tensors):
            raise SettingsError(
                f"outputs=... returned {[type(tensor).__qualname__ for tensor in tensors]}",
                "tensors: one, a sequence, or a mapping from binding names",
                "return torch.empty(...) for each output of the plan",
            )
        if self.names is None or len(self.names) != len(tensors):
            raise SettingsError(
                f"outputs=... returned {len(tensors)} tensors, and output_names is {self.names}",
                "a binding name for each",
                "return a mapping from binding names to tensors, or give output_names",
            )
        return [self._plain(name, t, inputs) for name, t in zip(self.names, tensors, strict=True)]

    def _plain(self, name: str, tensor: torch.Tensor, inputs: Sequence[Any]) -> torch.Tensor:
        """Return a contiguous tensor that is no alias of an input."""
        dtype = str(tensor.dtype).removeprefix("torch.")
        if dtype not in DTYPES:
            raise SettingsError(
                f"output {name!r} is {tensor.dtype}", f"one of {', '.join(DTYPES)}", "correct it"
            )
        return torch.empty(tensor.shape, dtype=tensor.dtype, device=inputs[0].device)


_current: ContextVar[_Outputs] = ContextVar("portrt_prebuilt_outputs")


def _register() -> None:
    """Define the operator that represents the plan in the trace, once in a process."""
    global _library
    with _register_lock:
        if _library is None:
            untyped: Any = torch.library.Library
            library = untyped("portrt", "FRAGMENT")
            library.define(_SCHEMA, tags=(torch.Tag.pt2_compliant_tag,))
            torch.library.register_fake(
                "portrt::prebuilt_plan", lambda inputs: _current.get()(inputs), lib=library
            )
            _library = library


def plan_without_source(
    inputs: Mapping[str, torch.Tensor | Input],
    outputs: Function | Mapping[str, torch.Tensor],
    output_names: Sequence[str] | None,
    dynamic_shapes: Any,
) -> tuple[ExportedProgram, Plan, list[str]]:
    """Make a program of one block without a source.

    Args:
        inputs: Binding name -> example or range, in call order.
        outputs: Takes fake tensors like the inputs, and returns empty ones like the outputs; or
            examples of outputs whose shapes are static.
        output_names: Names of the output bindings, where `outputs` does not give them.
        dynamic_shapes: Dynamic shapes as in `torch.export.export`.

    Returns:
        The program as captured, its plan, and the names of the output bindings.

    Raises:
        SettingsError: `outputs` cannot be used.
        CaptureError: `outputs` fails, or uses the value of a dynamic size.
    """
    _register()
    made = _Outputs(*_function(outputs, output_names))
    token = _current.set(made)
    module, values = _module(argument_names(inputs)), list(inputs.values())
    try:
        # A size that is 1 in the example only may be any size.
        with torch_internals.oblivious_to_size_one():
            captured = capture(module, values, dynamic_shapes=dynamic_shapes, narrow=False)
    except CaptureError as err:
        raise _cause(err) from err
    finally:
        _current.reset(token)
    ranges = sizes_to_tune_for(captured, values, None)
    assert made.names is not None
    return captured, _plan(captured, list(inputs), made.names, ranges), made.names


def _function(outputs: Any, names: Sequence[str] | None) -> tuple[Function, Sequence[str] | None]:
    if names is not None:
        names = check_names(names, "output")
    if callable(outputs):
        return outputs, names
    tensors = outputs.values() if isinstance(outputs, Mapping) else [None]
    if not tensors or not all(isinstance(tensor, torch.Tensor) for tensor in tensors):
        raise SettingsError(
            f"outputs is {outputs!r:.200}, and there is no source",
            "a function that takes tensors and returns empty outputs, as for "
            "torch.library.register_fake; or a mapping from binding names to example tensors",
            "write outputs=lambda x: {'y': x.new_empty(x.shape[0], 10)}",
        )
    examples = dict(outputs)
    return lambda *_: {k: torch.empty(t.shape, dtype=t.dtype) for k, t in examples.items()}, names


def _module(names: Sequence[str]) -> torch.nn.Module:
    """Make a module that calls the operator; its arguments have these names."""

    def forward(*inputs: torch.Tensor) -> Any:
        results = torch.ops.portrt.prebuilt_plan(list(inputs))
        return results[0] if len(results) == 1 else tuple(results)

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, kind) for name in names]
    forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    module = torch.nn.Module()
    module.forward = forward
    return module.eval()


def _cause(err: CaptureError) -> CaptureError | SettingsError:
    """Find the error of the user's function in that of torch.export."""
    cause: BaseException | None = err
    while cause is not None:
        if isinstance(cause, SettingsError):
            return cause
        cause = cause.__cause__ or cause.__context__
    return CaptureError(
        f"outputs=... cannot be traced: {err.happened.partition(': ')[2]}",
        "a function of the inputs' shapes, as for torch.library.register_fake",
        "compute sizes from x.shape alone, and do not compare dynamic ones with numbers; for a "
        "data-dependent size use torch.library.get_ctx().new_dynamic_size()",
    )


def _plan(
    captured: ExportedProgram, inputs: list[str], outputs: list[str], ranges: ProfileRanges
) -> Plan:
    """Replace the operator by the call of a block."""
    graph_module = captured.graph_module
    graph = graph_module.graph
    (call,) = (n for n in graph.nodes if n.target is torch.ops.portrt.prebuilt_plan.default)
    arguments: Any = call.args[0]
    known = symbols.dimensions_of(arguments)
    specs = input_specs(arguments, known, captured, ranges)
    block = Block(
        name=BLOCK,
        program=captured,
        weights=(),
        inputs=tuple(replace(spec, name=name) for spec, name in zip(specs, inputs, strict=True)),
        outputs=tuple(
            output_spec(name, value, known, captured)
            for name, value in zip(outputs, call.meta["val"], strict=True)
        ),
        node_count=0,
    )
    graph_module.add_submodule(BLOCK, torch.nn.Module())
    with graph.inserting_before(call):
        node = graph.call_module(BLOCK, tuple(arguments))
    node.meta = dict(call.meta)
    call.replace_all_uses_with(node)
    graph.erase_node(call)
    for item in graph.nodes:  # their stack traces name folders of the user's machine
        for key in META_TO_DROP:
            item.meta.pop(key, None)
    return Plan(captured, graph_module, (block,), {}, ())


def output_spec(
    name: str, value: torch.Tensor, known: symbols.Dimensions, captured: ExportedProgram
) -> OutputSpec:
    """Return the spec of an output, whose sizes follow from those of the inputs, or are new."""
    shape = tuple(_output_size(name, size, known, captured) for size in value.shape)
    return OutputSpec(name, dtype_name(value), shape)


def _output_size(name: str, size: Any, known: symbols.Dimensions, captured: ExportedProgram) -> Any:
    if not torch_internals.is_data_dependent(size):
        return size_tree(size, known)
    symbol = torch_internals.expression_of(size)
    if not symbol.is_symbol:
        raise SettingsError(
            f"output {name!r} has the size {symbol}, computed from a data-dependent one",
            "a size of the inputs, arithmetic on those, or a new size",
            "use get_ctx().new_dynamic_size() for this size, too",
        )
    _, upper = symbols.range_of(size, captured.range_constraints)
    return DataDependentSize(upper, str(symbol))
