"""A Dynamo graph as a module that torch.export captures: sizes and weights are no arguments."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from portrt import torch_internals
from portrt.compiler.torch_compile.outputs import Outputs, memory_of, split_outputs, value_of
from portrt.torch_internals.dynamo import argument_source

# The largest size that TensorRT's engines take, relative to that of the first call.
_WIDER = 4
_SIZES = (torch.SymInt, torch.SymFloat, torch.SymBool)
# What changes the mode in which gradients are recorded: there are none where engines run.
_GRAD_MODES = (torch._C._set_grad_enabled,)


_AUTOCAST_DEVICES = ("cpu", "cuda")


@contextlib.contextmanager
def without_autocast() -> Iterator[None]:
    """Disable autocast in a context; a prepared graph has what was enabled in itself."""
    with contextlib.ExitStack() as stack:
        for kind in _AUTOCAST_DEVICES:
            if torch.is_autocast_enabled(kind):
                mode: Any = torch.autocast(kind, enabled=False)
                stack.enter_context(mode)
        yield


def _enter_autocast(*settings: Any) -> Any:
    mode: Any = torch.amp.autocast(*settings)
    mode.__enter__()
    return mode


def _exit_autocast(mode: Any) -> None:
    mode.__exit__(None, None, None)


# A call of torch's own functions would be recorded by torch.export, but not take effect.
_AUTOCAST: dict[Any, Any] = {
    torch.amp.autocast_mode._enter_autocast: _enter_autocast,
    torch.amp.autocast_mode._exit_autocast: _exit_autocast,
}


@dataclass(frozen=True)
class DynamoGraph:
    """A Dynamo graph, prepared for `compile`.

    Attributes:
        module: Takes the arguments that are no weights and no sizes of others, and returns a tuple.
        inputs: Positions of these among the graph's arguments.
        weights: Name of a parameter or buffer of the module -> its position.
        outputs: How the graph's outputs come from the module's.
    """

    module: torch.fx.GraphModule
    inputs: tuple[int, ...]
    weights: Mapping[str, int]
    outputs: Outputs


def prepared(gm: torch.fx.GraphModule, arguments: Sequence[Any]) -> DynamoGraph:
    """Prepare a Dynamo graph; it is not modified.

    Raises:
        RefusedGraphError: Its outputs share memory in a way that cannot be kept.
    """
    outputs = split_outputs(gm.graph)
    graph = torch.fx.Graph()
    copies: dict[torch.fx.Node, torch.fx.Node] = {}
    graph.graph_copy(gm.graph, copies)
    graph.output(tuple(copies[node] for node in outputs.computed))
    root = torch.nn.Module()
    root.__dict__.update(gm.__dict__)
    root._parameters, root._buffers = dict(gm._parameters), dict(gm._buffers)
    root._modules = dict(gm._modules)
    positions: dict[torch.fx.Node, int] = {}
    weights: dict[str, int] = {}
    arrived = [node for node in gm.graph.nodes if node.op == "placeholder"]
    for index, (old, value) in enumerate(zip(arrived, arguments, strict=True)):
        node = copies[old]
        positions[node] = index
        if is_weight(old, value):
            name = f"weight_{index}"
            if isinstance(value, torch.nn.Parameter):
                root.register_parameter(name, value)
            else:
                root.register_buffer(name, value)
            with graph.inserting_before(node):
                read = graph.get_attr(name)
            _replace(node, read)
            weights[name] = index
    for node in [node for node in graph.nodes if node.op == "placeholder"]:
        if isinstance(value_of(node), _SIZES):
            _read_size(graph, node)
    for node in list(graph.nodes):
        if node.target in _GRAD_MODES:
            graph.erase_node(node)
        elif node.target in _AUTOCAST:
            node.target = _AUTOCAST[node.target]
    for node in [node for node in graph.nodes if node.op == "placeholder"]:
        if not node.users:
            graph.erase_node(node)
    kept = [node for node in graph.nodes if node.op == "placeholder"]
    _move_up(graph, kept)
    _add_autocast(graph)
    module = torch.fx.GraphModule(root, graph)
    module.eval()  # modes of layers are in the calls; torch.export reads the mode of the module
    return DynamoGraph(module, tuple(positions[node] for node in kept), weights, outputs)


def is_weight(node: torch.fx.Node, value: Any) -> bool:
    """Return whether an argument is a parameter or buffer of a module, and of real numbers."""
    if not isinstance(value, torch.Tensor) or value.is_complex():
        return False
    source = argument_source(node)
    static = all(isinstance(size, int) for size in getattr(value_of(node), "shape", ()))
    return static and (isinstance(value, torch.nn.Parameter) or "._buffers[" in source)


def examples_of(graph: DynamoGraph, arguments: Sequence[Any]) -> list[Any]:
    """Return the arguments of the module, of those of the first call.

    Tensors that share memory are copied: torch.export does not take them where one is written to.
    """
    memories = [memory_of(value) for value in arguments]
    found: list[Any] = []
    for position in graph.inputs:
        value, memory = arguments[position], memories[position]
        if isinstance(value, torch.Tensor):
            value = value.detach()  # torch.export removes the marks of dynamic sizes
            if memories.count(memory) > 1:
                value = value.clone()
        elif isinstance(value, _SIZES):
            value = torch_internals.hint_of(value)
        found.append(value)
    return found


def profile_of(graph: DynamoGraph) -> dict[str, tuple[int, int, int]]:
    """Return the range to tune engines for, by "input[axis]", of sizes without a maximum."""
    found = {}
    for node in graph.module.graph.nodes:
        shape = getattr(value_of(node), "shape", ()) if node.op == "placeholder" else ()
        for axis, size in enumerate(shape):
            low, high = _range_of(size) if isinstance(size, torch.SymInt) else (0, 0)
            if high is None:
                hint = max(torch_internals.hint_of(size) or low, low, 1)
                found[f"{node.name}[{axis}]"] = (max(low, 1), hint, _WIDER * hint)
    return found


def shapes_of(graph: DynamoGraph, *, inferred: bool) -> tuple[Any, ...]:
    """Return the dynamic shapes of the module's arguments, in the form of torch.export.

    Args:
        graph: The prepared graph.
        inferred: Whether torch may narrow the ranges, and find that sizes are equal. Else equal
            symbols are one size, and the range is Dynamo's.
    """
    dims: dict[str, Any] = {}
    placeholders = [node for node in graph.module.graph.nodes if node.op == "placeholder"]
    return tuple(_shape_of(value_of(node), dims, inferred=inferred) for node in placeholders)


def _shape_of(value: Any, dims: dict[str, Any], *, inferred: bool) -> Any:
    if isinstance(value, torch.SymInt):
        return torch.export.Dim.DYNAMIC
    if not isinstance(value, torch.Tensor):
        return None
    found: dict[int, Any] = {}
    sizes: tuple[Any, ...] = tuple(value.shape)
    for axis, size in enumerate(sizes):
        if isinstance(size, torch.SymInt):
            low, high = _range_of(size)
            expression = torch_internals.expression_of(size)
            if inferred or not expression.is_symbol:
                found[axis] = torch.export.Dim.AUTO(min=low, max=high)
            else:
                name = f"size_{expression}"
                dims.setdefault(name, torch.export.Dim(name, min=low, max=high))
                found[axis] = dims[name]
    return found or None


def _range_of(size: torch.SymInt) -> tuple[int, int | None]:
    """Return the smallest and largest size, as far as Dynamo knows them."""
    bounds = torch_internals.bounds(
        torch_internals.expression_of(size), torch_internals.traced_ranges(size)
    )
    low = max(int(bounds.lower), 0) if bounds.lower.is_Integer else 0
    high = int(bounds.upper) if bounds.upper.is_Integer else None
    return low, None if high is None or high >= 2**62 else high


def _read_size(graph: torch.fx.Graph, node: torch.fx.Node) -> None:
    """Replace a size that is an argument by that of the tensor that has it, if one has."""
    wanted = torch_internals.expression_of(value_of(node))
    for tensor in [other for other in graph.nodes if other.op == "placeholder"]:
        shape = value_of(tensor).shape if isinstance(value_of(tensor), torch.Tensor) else ()
        for axis, size in enumerate(shape):
            if isinstance(size, torch.SymInt) and torch_internals.expression_of(size) == wanted:
                with graph.inserting_after(tensor):
                    read = graph.call_function(torch.ops.aten.sym_size.int, (tensor, axis))
                _replace(node, read)
                return


def _replace(node: torch.fx.Node, by: torch.fx.Node) -> None:
    by.meta.update(node.meta)
    node.replace_all_uses_with(by)
    node.graph.erase_node(node)


def _add_autocast(graph: torch.fx.Graph) -> None:
    """Write the autocast that is enabled around the graph into it."""
    enabled = [kind for kind in _AUTOCAST_DEVICES if torch.is_autocast_enabled(kind)]
    for kind in enabled:
        settings = (kind, torch.get_autocast_dtype(kind), True, torch.is_autocast_cache_enabled())
        first = next(node for node in graph.nodes if node.op != "placeholder")
        with graph.inserting_before(first):
            mode = graph.call_function(_enter_autocast, settings)
        with graph.inserting_before(graph.output_node()):
            graph.call_function(_exit_autocast, (mode,))


def _move_up(graph: torch.fx.Graph, nodes: Sequence[torch.fx.Node]) -> None:
    """Move placeholders before all other nodes, in their order."""
    for node in reversed(nodes):
        first = next(iter(graph.nodes))
        if first is not node:
            first.prepend(node)
