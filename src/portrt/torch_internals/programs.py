"""Private parts of exported programs: fusing nodes, construction, guards."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy
from typing import Any

import torch
from torch.export import ExportedProgram, ModuleCallEntry, ModuleCallSignature
from torch.export.graph_signature import ExportGraphSignature, InputKind
from torch.utils import _pytree as pytree


def fuse(
    graph_module: torch.fx.GraphModule,
    groups: Iterable[Iterable[torch.fx.Node]],
    prefix: str = "block_",
) -> None:
    """Move each group of nodes to a submodule `block_0`, `block_1`, ... that returns a tuple."""
    from torch.fx.passes.utils.fuser_utils import fuse_by_partitions

    names = placeholder_names(graph_module.graph)
    fuse_by_partitions(
        graph_module,
        [dict.fromkeys(group) for group in groups],
        prefix=prefix,
        always_return_tuple=True,
    )
    name_placeholders(graph_module.graph, names)


def placeholder_names(graph: torch.fx.Graph) -> list[str]:
    """Return the names of the placeholders, in order."""
    return [node.name for node in graph.nodes if node.op == "placeholder"]


def name_placeholders(graph: torch.fx.Graph, names: Iterable[str]) -> None:
    """Set the names of the placeholders exactly, as torch.export does.

    fx renames `input` to `input_1` in a copied graph, because it avoids names of Python's builtins.
    """
    nodes = [node for node in graph.nodes if node.op == "placeholder"]
    for node, name in zip(nodes, names, strict=True):
        node.name = node.target = name


def program_from_graph(
    like: ExportedProgram,
    graph_module: torch.fx.GraphModule,
    signature: ExportGraphSignature,
    state_dict: Mapping[str, Any],
    constants: Mapping[str, Any],
    module_call_graph: list[ModuleCallEntry] | None = None,
) -> ExportedProgram:
    """Make a program with another graph, and the symbols and guards of `like`.

    Args:
        like: The program to take symbols, guards and example inputs from.
        graph_module: The new graph.
        signature: Its signature.
        state_dict: Parameters and buffers by name.
        constants: Constants by name.
        module_call_graph: The calling convention; that of `like` if None.
    """
    root_entry = [entry for entry in like.module_call_graph if entry.fqn == ""]
    program = ExportedProgram(
        root=graph_module,
        graph=graph_module.graph,
        graph_signature=signature,
        state_dict=dict(state_dict),
        range_constraints=dict(like.range_constraints),
        module_call_graph=module_call_graph or root_entry,
        example_inputs=like.example_inputs,
        constants=dict(constants),
        verifiers=like.verifiers,
    )
    program._guards_code = list(like._guards_code)
    return program


def with_guards_of(program: ExportedProgram, other: ExportedProgram | None) -> ExportedProgram:
    """Set the guards of a program in place, to those of another or none, and return it."""
    program._guards_code = [] if other is None else list(other._guards_code)
    return program


def add_guards_of(program: ExportedProgram, other: ExportedProgram) -> None:
    """Add the guards of another program with the same inputs, in place."""
    program._guards_code = list(dict.fromkeys([*other._guards_code, *program._guards_code]))


def guards_code_of(program: ExportedProgram) -> list[str]:
    """Return the guards on the inputs, as text."""
    return list(program._guards_code)


def user_input_values(program: ExportedProgram) -> list[Any]:
    """Return the fake tensor or number of each user input, in the order of the flat arguments."""
    values = {
        node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"
    }
    return [
        values.get(getattr(spec.arg, "name", ""))
        for spec in program.graph_signature.input_specs
        if spec.kind is InputKind.USER_INPUT
    ]


def with_ranges(program: ExportedProgram, ranges: Mapping[Any, Any]) -> ExportedProgram:
    """Return a shallow copy of the program with other ranges for its symbols."""
    changed = copy(program)
    changed._range_constraints = dict(ranges)
    return changed


def renew_forward(module: torch.fx.GraphModule) -> None:
    """Make the forward of a module that of its changed graph, at once for calls of other threads.

    `recompile` would replace the `__call__` of its class too.
    """
    from torch.fx.graph_module import _forward_from_src

    code = module.graph.python_code(root_module="self")
    module._code = code.src
    kind: Any = type(module)
    kind.forward = _forward_from_src(code.src, code.globals, {})


def guards_of(module: torch.fx.GraphModule) -> torch.nn.Module | None:
    """Return the submodule of a program's module that checks its flat inputs, if it has one."""
    return getattr(module, "_guards_fn", None)


def set_guards(module: torch.fx.GraphModule, guards: torch.nn.Module) -> None:
    """Replace the submodule that checks flat inputs."""
    module._guards_fn = guards


def unchecked_module(program: ExportedProgram) -> torch.fx.GraphModule:
    """Return a program's module without torch's checks of its inputs, which the caller has made.

    torch's checks refuse inputs that have a size with a floor division, such as s // 2 + 1.
    """
    module: torch.fx.GraphModule = program.module(check_guards=False)
    module._forward_pre_hooks.clear()
    return module


def argument_names(program: ExportedProgram) -> list[str] | None:
    """Return the names of forward's arguments, positional ones first; None if torch has none."""
    signature = program.module_call_graph[0].signature
    return None if signature is None else signature.forward_arg_names


def run_flat(
    program: ExportedProgram,
    example_inputs: tuple[tuple[Any, ...], dict[str, Any]],
    run_block: Callable[[str, tuple[Any, ...]], Any],
) -> tuple[Any, ...]:
    """Run a program's graph on real inputs; calls of submodules go to `run_block`."""
    kinds = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
    given = iter(pytree.tree_leaves(example_inputs))
    flat = []
    for node in program.graph.nodes:
        if node.op == "placeholder":
            target = kinds[node.name].target
            held = program.state_dict.get(target, program.constants.get(target))
            flat.append(next(given) if target is None else held)

    class Runner(torch.fx.Interpreter):
        def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if target.startswith("block_"):
                return run_block(target, args)
            return super().call_module(target, args, kwargs)

        def call_function(self, target: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
            if target is torch.ops.higher_order.cond:
                for branch in args[1:3]:  # both, so that the blocks in each get inputs
                    with contextlib.suppress(Exception):
                        branch(*args[3])
            return super().call_function(target, args, kwargs)

    results: tuple[Any, ...] = Runner(program.graph_module).run(*flat)
    return results


@contextlib.contextmanager
def without_torch_noise() -> Iterator[None]:
    """Suppress warnings on deprecated features that torch itself uses, in a context."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec", FutureWarning)
        yield


def constant_names(program: ExportedProgram) -> Mapping[str, str]:
    """Return placeholder name -> name of the tensor constant."""
    names: Mapping[str, str] = program.graph_signature.inputs_to_lifted_tensor_constants
    return names


def with_constants(
    program: ExportedProgram, constants: Mapping[str, torch.Tensor]
) -> ExportedProgram:
    """Return a shallow copy of the program with other tensors for some constants, for saving."""
    other = copy(program)
    other._constants = {**program.constants, **constants}
    return other


def extend_constants(
    program: ExportedProgram, signature: ExportGraphSignature, constants: Mapping[str, torch.Tensor]
) -> None:
    """Give a program more constants, in place, once its graph has placeholders for them.

    The graph may be one that no program can be made of, such as one with calls of submodules.
    """
    program._graph_signature = signature
    program._constants = {**program.constants, **constants}


def positional_call_graph(signature: ExportGraphSignature) -> list[ModuleCallEntry]:
    """Make the calling convention of a block: positional tensors in, a tuple of tensors out."""
    inputs = [spec.arg for spec in signature.input_specs if spec.kind is InputKind.USER_INPUT]
    outputs = [spec.arg for spec in signature.output_specs]
    convention = ModuleCallSignature(
        inputs=inputs,
        outputs=outputs,
        in_spec=pytree.tree_structure(((0,) * len(inputs), {})),
        out_spec=pytree.tree_structure((0,) * len(outputs)),
        forward_arg_names=None,
    )
    return [ModuleCallEntry("", convention)]
