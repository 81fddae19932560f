"""Turn the submodule that a block's nodes were moved to into a self-contained program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import (
    ExportGraphSignature,
    InputKind,
    InputSpec,
    OutputKind,
    OutputSpec,
    TensorArgument,
)

from portrt import torch_internals
from portrt.compiler.plan import Block
from portrt.compiler.sizes import data_sizes
from portrt.errors import PartitionError
from portrt.graphs import nested, symbols
from portrt.graphs.specs import input_specs, number_tree, output_spec
from portrt.graphs.symbols import ProfileRanges
from portrt.torch_internals.programs import positional_call_graph

# Meta about the user's files and modules: not needed to run a block, and different in two exports
# of one model.
META_TO_DROP = ("stack_trace", "from_node", "torch_fn", "source_fn_stack", "custom")


def block_from_submodule(
    program: ExportedProgram,
    holder: torch.fx.GraphModule,
    call: torch.fx.Node,
    weight_names: Mapping[str, str],
    placeholders: Sequence[torch.fx.Node],
    profile_ranges: ProfileRanges,
) -> Block:
    """Make the submodule that `call` calls self-contained; `call` then takes tensors only.

    Args:
        program: The program that `call` is in.
        holder: The graph that `call` is in: the program's, or one inside it.
        call: A `call_module` node whose submodule returns a tuple. Its arguments are rewritten.
        weight_names: Placeholder name -> name of the weight, for inputs that become weights.
        placeholders: The placeholders of `holder`, from which sizes can be read.
        profile_ranges: Symbol -> (min, opt, max) in each profile, where it is not the example's.
    """
    module = holder.get_submodule(str(call.target))
    assert isinstance(module, torch.fx.GraphModule)
    inner = [node for node in module.graph.nodes if node.op == "placeholder"]
    arguments: Any = call.args  # all of them nodes
    pairs: list[tuple[torch.fx.Node, torch.fx.Node]] = list(zip(inner, arguments, strict=True))
    sizes = [own for own, _ in pairs if not isinstance(own.meta.get("val"), torch.Tensor)]
    weights = [
        (own, weight_names[outer.name]) for own, outer in pairs if outer.name in weight_names
    ]
    apart = {*sizes, *(own for own, _ in weights)}
    inputs = [(own, outer) for own, outer in pairs if own not in apart]
    results: Any = module.graph.output_node().args[0]
    outputs: list[torch.fx.Node] = list(results)
    outer_inputs = [outer for _, outer in inputs]
    needed = [own.meta["val"] for own in sizes]
    needed += [size for out in outputs for size in out.meta["val"].shape]
    needed = [size for size in needed if not symbols.unbacked_symbols([size])]
    outer_inputs += _inputs_for_sizes(needed, outer_inputs, placeholders)
    for own, outer in pairs:  # data-dependent sizes are read from a tensor outside
        if own in sizes and symbols.unbacked_symbols([own.meta["val"]]):
            outer_inputs += [t for t in data_sizes.size_sources(outer) if t not in outer_inputs]

    graph = torch.fx.Graph()
    env: dict[torch.fx.Node, Any] = {}  # the nodes of the submodule -> those of the graph
    new_inputs = [_placeholder(graph, outer) for outer in outer_inputs]
    env.update(zip((own for own, _ in inputs), new_inputs, strict=False))
    by_name: dict[str, torch.fx.Node] = {}
    for own, name in weights:  # tied weights have one name, and become one input
        if name not in by_name:
            by_name[name] = _placeholder(graph, own)
        env[own] = by_name[name]
    known = symbols.dimensions_of(new_inputs)
    for own in sizes:
        env[own] = symbols.emit(graph, number_tree(own.meta["val"], known), new_inputs)
    for index, node in enumerate(graph.nodes):
        if node.op == "call_function":
            node.name = f"portrt_size_{index}"  # so that the nodes below keep their names
    for node in module.graph.nodes:
        if node.op in ("call_function", "get_attr"):
            env[node] = graph.node_copy(node, env.__getitem__)
            env[node].name = node.name
    graph.output(tuple(env[out] for out in outputs))
    call.args = tuple(outer_inputs)
    own_program = _program(program, graph, nested.copies_of_graphs(module))
    for node in nested.all_nodes(own_program.graph_module):
        for key in META_TO_DROP:
            node.meta.pop(key, None)
    return Block(
        name=str(call.target),
        program=own_program,
        weights=tuple(by_name),
        inputs=input_specs(new_inputs, known, program, profile_ranges),
        outputs=tuple(output_spec(env[out], known, program) for out in outputs),
        node_count=count_operators(own_program.graph_module),
        changeable=frozenset(name for name in by_name if name in program.state_dict),
    )


def _inputs_for_sizes(
    needed: Sequence[Any], inputs: Sequence[torch.fx.Node], placeholders: Sequence[torch.fx.Node]
) -> list[torch.fx.Node]:
    """Return the program inputs that are needed in addition, for sizes that `inputs` lack."""
    added: list[torch.fx.Node] = []
    for size in needed:
        known = symbols.dimensions_of([*inputs, *added])
        for symbol in symbols.missing_symbols(size, known):
            if symbols.knows(symbol, known):
                continue  # known from an input that was added for another symbol
            found = [p for p in placeholders if symbols.knows(symbol, symbols.dimensions_of([p]))]
            if not found:
                raise PartitionError(
                    f"the size {size} cannot be computed from the sizes of the program's inputs",
                    "sizes that are an input's dimension or arithmetic on those",
                    "report the model: portrt should have left this node in PyTorch",
                )
            added.append(found[0])
            known = symbols.dimensions_of([*inputs, *added])
    return added


def _placeholder(graph: torch.fx.Graph, like: torch.fx.Node) -> torch.fx.Node:
    node = graph.placeholder(like.name)
    node.name = node.target = like.name  # fx renames `input` to input_1, as Python's builtin
    node.meta["val"] = like.meta["val"]
    return node


def count_operators(module: torch.fx.GraphModule) -> int:
    """Count the operator calls in a graph and in the graphs inside it."""
    return sum(nested.is_operator(node) for node in nested.all_nodes(module))


def _program(
    like: ExportedProgram,
    graph: torch.fx.Graph,
    graphs: Mapping[str, torch.fx.GraphModule],
) -> ExportedProgram:
    """Make a program whose placeholders are all user inputs, with the symbols of `like`.

    Args:
        like: The program that the nodes come from.
        graph: The graph of the new program.
        graphs: Name -> graph that control-flow nodes call.
    """
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    results: Any = graph.output_node().args[0]
    signature = ExportGraphSignature(
        [InputSpec(InputKind.USER_INPUT, TensorArgument(n.name), None) for n in placeholders],
        [OutputSpec(OutputKind.USER_OUTPUT, TensorArgument(n.name), None) for n in results],
    )
    module = torch.fx.GraphModule(nested.root_with(graphs), graph)
    used = set().union(*(_symbols(node) for node in nested.all_nodes(module)))
    return ExportedProgram(
        root=module,
        graph=module.graph,
        graph_signature=signature,
        state_dict={},
        range_constraints={k: v for k, v in like.range_constraints.items() if k in used},
        module_call_graph=positional_call_graph(signature),
        example_inputs=None,
        constants={},
        verifiers=like.verifiers,
    )


def _symbols(node: torch.fx.Node) -> set[Any]:
    value = node.meta.get("val")
    values = value if isinstance(value, (list, tuple)) else [value]
    sizes = [s for v in values if isinstance(v, torch.Tensor) for s in v.shape] + list(values)
    return {
        symbol
        for size in sizes
        if isinstance(size, (torch.SymInt, torch.SymFloat))
        for symbol in torch_internals.expression_of(size).free_symbols
    }
