"""Callable of a program, with guards that name the input, the expected and the actual value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from portrt import torch_internals
from portrt.errors import InputError, PackageError, PortrtError
from portrt.format.manifest import Signature
from portrt.graphs import symbols
from portrt.graphs.program_inputs import check_output_structure, user_input_nodes
from portrt.graphs.specs import input_specs
from portrt.runtime.direct_call import call_directly
from portrt.runtime.input_check import check_inputs
from portrt.runtime.module_meta import PROGRAM as PROGRAM

_MAX_KNOWN_SHAPES = 1024
# What a call reads beside the blobs.
_STATE = {InputKind.PARAMETER, InputKind.BUFFER}


def module_of(program: ExportedProgram) -> torch.fx.GraphModule:
    """Return `program.module()` with guards that raise InputError for invalid inputs.

    torch's own guards report the violated bound but not the input, and check neither dtypes nor
    devices.

    Raises:
        PackageError: The program's structures of arguments and results do not fit its graph.
    """
    from portrt.runtime.module_methods import add_methods  # not where no module is made

    check_output_structure(program)
    _check_argument_names(program)
    try:
        module: torch.fx.GraphModule = program.module()
    except PortrtError:
        raise
    except Exception as err:  # such as two arguments of one name
        raise PackageError(
            f"the program cannot be made a module: {type(err).__name__}: {err!s:.300}",
            "a program that torch.export or portrt wrote",
            "get the file again from where it was made, or compile the model again",
        ) from err
    module.meta[PROGRAM] = program
    guards = torch_internals.guards_of(module)
    if guards is not None:
        torch_internals.set_guards(module, InputGuards(program, guards))
    add_methods(module, program)
    module.register_forward_pre_hook(_Arguments(program), with_kwargs=True, prepend=True)
    call_directly(module, program)
    if any(spec.kind in _STATE for spec in program.graph_signature.input_specs):
        from portrt.runtime.new_weights.gate import add_gate

        add_gate(module)
    return module


def _check_argument_names(program: ExportedProgram) -> None:
    """Raise PackageError unless there are as many names as arguments; torch may have no names."""
    names, spec = torch_internals.argument_names(program), program.call_spec.in_spec
    if not names or spec is None or spec.num_children != 2:
        return
    count = sum(child.num_children for child in spec.children())
    if len(names) != count:
        raise PackageError(
            f"the program names {len(names)} arguments and takes {count}",
            "a name for each argument",
            "get the file again from where it was made, or compile the model again",
        )


class _Arguments:
    """Pre-hook that takes positional arguments by keyword, and rejects others by name."""

    def __init__(self, program: ExportedProgram) -> None:
        spec = program.call_spec.in_spec
        assert spec is not None
        positional, keywords = spec.children()
        self._count = positional.num_children
        self._keywords = set(keywords.context or ())
        names = torch_internals.argument_names(program) or [f"#{i}" for i in range(self._count)]
        self._names = names[: self._count]

    def __call__(self, _module: torch.nn.Module, args: Any, kwargs: Any) -> Any:
        if len(args) == self._count and kwargs.keys() == self._keywords:
            return None
        if torch.compiler.is_compiling() or torch_internals.is_tracing():
            return None
        rest = self._names[len(args) :]
        if len(args) + len(rest) == self._count and kwargs.keys() == {*rest, *self._keywords}:
            others = {name: value for name, value in kwargs.items() if name not in rest}
            return (*args, *(kwargs[name] for name in rest)), others
        by_name = f" and by keyword {', '.join(sorted(kwargs))}" if kwargs else ""
        wanted = f" and by keyword {', '.join(sorted(self._keywords))}" if self._keywords else ""
        raise InputError(
            f"the program was called with {len(args)} positional arguments{by_name}",
            f"{self._count} positional arguments ({', '.join(self._names)}){wanted}",
            "call it with the arguments that it was exported with, each in the same way",
        )


class InputGuards(torch.nn.Module):
    """Guards module: called with the flat inputs before any other node of the graph.

    Args:
        program: Program whose inputs are checked.
        guards: torch's own guards, which run after these.
    """

    def __init__(self, program: ExportedProgram, guards: torch.nn.Module) -> None:
        super().__init__()
        self._guards = guards
        inputs = user_input_nodes(program)
        self._names, nodes = list(inputs), list(inputs.values())
        self._tensors = [
            index for index, node in enumerate(nodes) if isinstance(node.meta["val"], torch.Tensor)
        ]
        # Inputs that are not tensors are checked by torch's guards at every call.
        self._caches = len(self._tensors) == len(nodes)
        tensors = [nodes[index] for index in self._tensors]
        specs = input_specs(tensors, symbols.dimensions_of(tensors), program, {})
        self._signature = Signature("the program", specs, ()) if tensors else None
        self._known: set[tuple[Any, ...]] = set()

    def forward(self, *flat: Any) -> None:
        """Raise InputError unless the program accepts these inputs."""
        if torch.compiler.is_compiling() or torch_internals.is_tracing():
            self._guards(*flat)
            return
        tensors = [flat[index] for index in self._tensors]
        key = tuple([(tensor.shape, tensor.dtype, tensor.device) for tensor in tensors])
        if key in self._known:
            return
        if self._signature is not None:
            check_inputs(self._signature, tensors)
        try:
            self._guards(*flat)
        except AssertionError as err:
            raise self._refusal(flat, err) from err
        except NameError as err:  # torch found no argument for a size in them
            raise PackageError(
                f"the program's guards do not fit its arguments: {err!s:.300}",
                "a program that torch.export or portrt wrote",
                "get the file again from where it was made, or compile the model again",
            ) from err
        if len(self._known) >= _MAX_KNOWN_SHAPES:
            self._known.clear()
        if self._caches:
            self._known.add(key)

    def _refusal(self, flat: Sequence[Any], err: AssertionError) -> InputError:
        """Return an InputError with the message of torch's guard and the inputs of the call."""
        given = [
            f"{name} {tuple(item.shape) if isinstance(item, torch.Tensor) else repr(item)}"
            for name, item in zip(self._names, flat, strict=False)
        ]
        return InputError(
            f"the program does not accept this combination of inputs: {', '.join(given)}",
            str(err).removeprefix("Guard failed: "),
            "give other inputs; torch.export found this condition in the model, or it was exported "
            "with another value",
        )
