"""Direct calls: programs that consist of one engine call bypass the graph module.

The graph module flattens its arguments, checks guards and goes through torch's dispatcher, which
takes longer than a small engine. Calls whose sizes, dtypes and devices were seen before need none
of these steps, as long as the module holds the same blobs. Buffers that the program updates are
inputs of the engine, too, and are written where they are if the engine can.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind
from torch.utils import _pytree as pytree

from portrt import torch_internals
from portrt.graphs.program_inputs import user_input_nodes
from portrt.runtime.block import Run
from portrt.runtime.calls import engine_calls
from portrt.runtime.input_check import Shapes
from portrt.runtime.op import load_block
from portrt.runtime.policy import CONTEXT

_MAX_KNOWN = 1024
_OUTPUTS = {OutputKind.USER_OUTPUT, OutputKind.BUFFER_MUTATION}

# What runs a call, the shapes of its outputs, and for each blob of the block: the attribute of the
# module, and the blob.
_Known = tuple[Run, Shapes, tuple[tuple[Callable[[Any], Any], torch.Tensor], ...]]


def call_directly(module: torch.fx.GraphModule, program: ExportedProgram) -> None:
    """Replace a module's `__call__` by a direct call of the engine, if the program is one call.

    Calls with keywords, hooks, tensor subclasses, modes, or under tracing go through the graph, as
    does the first call for each combination of sizes, dtypes, device and policy, which also checks
    the inputs.

    Args:
        module: Result of `program.module()`. The `__call__` of its class is replaced.
        program: Program of the module; not modified.
    """
    buffers = _updated_buffers(program)
    positions = _input_positions(program, list(buffers.values()))
    indices = _output_indices(program)
    if positions is None or indices is None or program.call_spec.out_spec is None:
        return
    updates = _updates(program, indices) if buffers else {}
    if updates is None:
        return
    through_graph = type(module).__call__
    given = [index for index in indices if index not in updates]
    make = _maker(program.call_spec.out_spec, given)
    hooks = _hook_count(module)
    count = len(user_input_nodes(program))
    getters = [operator.attrgetter(name) for name in buffers]
    known: dict[Any, _Known] = {}
    usual = torch_internals.nothing_intercepts
    plain = torch.Tensor

    def call(self: torch.fx.GraphModule, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling() or kwargs or len(args) != count or not usual():
            return through_graph(self, *args, **kwargs)
        if _hook_count(self) != hooks:  # hooks other than the argument checks of torch and portrt
            return through_graph(self, *args)
        key: list[Any] = [CONTEXT.get()]
        args += tuple([get(self) for get in getters])
        for item in args:
            if type(item) is not plain or item.is_neg():  # a view with the negative bit set
                return through_graph(self, *args[:count])
            key += (item.shape, item.dtype, item.device)
        found = known.get(tuple(key))
        if found is not None:
            run, shapes, blobs = found
            for get, blob in blobs:
                if get(self) is not blob:  # replaced by the user
                    known.clear()
                    break
            else:
                return make(run([args[position] for position in positions], shapes))
        results = through_graph(self, *args[:count])
        prepared = _prepared(self, [args[position] for position in positions], updates)
        if len(known) >= _MAX_KNOWN:
            known.clear()
        known[tuple(key)] = prepared
        return results

    type(module).__call__ = call  # type: ignore[method-assign]


def _hook_count(module: torch.nn.Module) -> int:
    return len(module._forward_hooks) + len(module._forward_pre_hooks) + len(module._backward_hooks)


def _prepared(
    module: torch.fx.GraphModule,
    inputs: Sequence[torch.Tensor],
    updates: dict[int, int],
) -> _Known:
    """Prepare the block of the only engine call, with the blobs that the module holds now."""
    (node,) = engine_calls(module)
    _, nodes, text = node.args  # at once: another thread may give the call other weights
    getters = [operator.attrgetter(blob.target) for blob in nodes]
    blobs = [get(module) for get in getters]
    run, shapes = load_block(blobs, text).prepared(inputs)
    if updates:
        from portrt.runtime.updated_buffers import Updating

        run = Updating(run, shapes, updates)
    return run, shapes, tuple(zip(getters, blobs, strict=True))


def _updated_buffers(program: ExportedProgram) -> dict[str, str]:
    """Return buffer -> its placeholder, for the buffers that a program updates."""
    if not program.graph_signature.buffers_to_mutate:
        return {}
    from portrt.runtime.updated_buffers import buffer_nodes

    return buffer_nodes(program)


def _updates(program: ExportedProgram, indices: Sequence[int]) -> dict[int, int] | None:
    """Return engine result -> the engine input that it replaces; None if that is not all."""
    from portrt.runtime.updated_buffers import updates_of

    (call,) = engine_calls(program)
    return updates_of(program, [node.name for node in call.args[0]], indices)


def _input_positions(program: ExportedProgram, buffers: Sequence[str]) -> list[int] | None:
    """Return the position of each engine input; None if the graph has other operators.

    Args:
        program: The program.
        buffers: Placeholders that come after the arguments.
    """
    nodes = list(user_input_nodes(program).values())
    spec = program.call_spec.in_spec
    calls = list(engine_calls(program))
    if spec is None or len(calls) != 1:
        return None
    positional, keywords = spec.children()
    if keywords.num_children or any(not child.is_leaf() for child in positional.children()):
        return None
    (call,) = calls
    inputs = call.args[0]
    others = {"placeholder", "output"}
    for node in program.graph.nodes:
        if node.op in others or node is call or node.target is operator.getitem:
            continue
        return None
    by_name = {node.name: node for node in program.graph.nodes}
    nodes += [by_name[name] for name in buffers]
    if any(node not in nodes for node in inputs):
        return None
    if not all(isinstance(node.meta.get("val"), torch.Tensor) for node in nodes):
        return None
    return [nodes.index(node) for node in inputs]


def _output_indices(program: ExportedProgram) -> list[int] | None:
    """Return the engine result index of each output; None if an output is anything else."""
    specs = program.graph_signature.output_specs
    (output,) = (node for node in program.graph.nodes if node.op == "output")
    indices = []
    for spec, node in zip(specs, output.args[0], strict=True):
        if spec.kind not in _OUTPUTS or not isinstance(node, torch.fx.Node):
            return None
        if node.target is not operator.getitem:
            return None
        indices.append(int(str(node.args[1])))
    # An index may occur twice: the graph, too, returns the same tensor for both outputs.
    return indices


def _maker(spec: Any, indices: Sequence[int]) -> Callable[[list[torch.Tensor]], Any]:
    if spec.is_leaf():
        (index,) = indices
        return lambda results: results[index]
    if spec.type is tuple and all(child.is_leaf() for child in spec.children()):
        return lambda results: tuple([results[index] for index in indices])
    return lambda results: pytree.tree_unflatten([results[index] for index in indices], spec)
