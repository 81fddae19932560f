"""Verdicts on nodes: whether engines can hold them, and the reason if not."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch

from portrt import torch_internals
from portrt.compiler.options.settings import Settings
from portrt.compiler.options.values import operator_name
from portrt.compiler.partition.higher_order import verdict_on_graphs, verdict_on_kind
from portrt.compiler.sizes import data_sizes
from portrt.graphs import nested, symbols
from portrt.graphs.module_path import ModulePath
from portrt.verdict import YES, Verdict

Supports = Callable[[torch.fx.Node], Verdict]

aten = torch.ops.aten

# They compute nothing: PyTorch checks what engines return.
_CHECKS = {
    *(aten._assert_async.default, aten._assert_async.msg, aten._assert_scalar.default),
    *(aten.sym_constrain_range.default, aten.sym_constrain_range_for_size.default),
}


def verdicts_of(
    graph_module: torch.fx.GraphModule,
    settings: Settings,
    supports: Supports,
    excluded: Mapping[str, Verdict],
) -> dict[torch.fx.Node, Verdict]:
    """Return a verdict for each node that computes tensors.

    A control-flow operator is in an engine together with its branches, or not at all. Nodes that
    compute sizes have no verdict: they are computed where they are used. Checks have none either.
    """
    device = _main_device(graph_module)
    placeholders = [node for node in graph_module.graph.nodes if node.op == "placeholder"]
    known = symbols.dimensions_of(placeholders)
    data_dependent = set(data_sizes.known_symbols(graph_module.graph))

    def verdicts_in(module: torch.fx.GraphModule) -> dict[torch.fx.Node, Verdict]:
        found: dict[torch.fx.Node, Verdict] = {}
        for node in module.graph.nodes:
            if node.op != "call_function" or torch_internals.is_symbolic_call(node):
                continue
            if node.target in _CHECKS:
                continue
            if node.target is operator.getitem:
                found[node] = found.get(
                    node.args[0], Verdict.no("bound_to_pytorch", "its source is in PyTorch")
                )
            elif node.name in excluded:
                found[node] = excluded[node.name]
            else:
                found[node] = _verdict(node, settings, device, known, data_dependent) and supports(
                    node
                )
            inner = nested.graphs_of_call(module, node)
            if inner and found[node]:
                found[node] = verdict_on_graphs(inner, verdicts_in)
        _keep_complex_tensors_inside(found)
        return found

    return verdicts_in(graph_module)


def _keep_complex_tensors_inside(found: dict[torch.fx.Node, Verdict]) -> None:
    """Reject nodes that would pass a complex tensor between an engine and PyTorch.

    Engines take and return real tensors only: the producer of a complex tensor and all its users
    are in one engine, or none is. The rejected nodes get the reason of the first rejected one.
    """
    chains = [
        [node, *node.users]
        for node in found
        if isinstance(node.meta.get("val"), torch.Tensor) and node.meta["val"].is_complex()
    ]
    outside = Verdict.no(
        "bound_to_pytorch", "it returns a complex tensor to a node that is not in an engine"
    )
    while any(
        any(found.get(node) for node in chain) and not all(found.get(node) for node in chain)
        for chain in chains
    ):
        for chain in chains:
            refused = [found.get(node, outside) for node in chain if not found.get(node)]
            for node in chain if refused else ():
                if found.get(node):
                    found[node] = refused[0]


def _verdict(
    node: torch.fx.Node,
    settings: Settings,
    device: torch.device,
    known: symbols.Dimensions,
    data_dependent: set[Any],
) -> Verdict:
    """Return whether engines can hold the node, apart from limits of single backends."""
    asked = _verdict_on_options(node, settings)
    if not asked:
        return asked
    kind = _verdict_on_operator(node) if _is_operator(node) else verdict_on_kind(node)
    return kind and _verdict_on_values(node, device, known, data_dependent)


def _is_operator(node: torch.fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload)


def _verdict_on_options(node: torch.fx.Node, settings: Settings) -> Verdict:
    """Return no if a user option keeps the node in PyTorch."""
    if nested.is_operator(node):
        name = operator_name(node.target)
        if settings.torch_executed_ops & {name, name.rpartition(".")[0]}:
            return Verdict.no(
                "left_out", "named in torch_executed_ops", "leave it out of torch_executed_ops"
            )
    module = ModulePath.of(node.meta).match(settings.torch_executed_modules)
    if module is not None:
        return Verdict.no(
            "left_out",
            f"{module!r} is named in torch_executed_modules",
            "leave the module out of torch_executed_modules",
        )
    return YES


def _verdict_on_operator(node: torch.fx.Node) -> Verdict:
    target: Any = node.target
    if target._schema.is_mutable:
        return Verdict.no(
            "unsupported_operator",
            "it writes to its inputs",
            "use the operator that returns a new tensor",
        )
    if torch.Tag.nondeterministic_seeded in target.tags and not drops_nothing(node):
        return Verdict.no(
            "unsupported_operator",
            "it draws random numbers from torch's generator",
            "take the random numbers as an input",
        )
    return YES


def _verdict_on_values(
    node: torch.fx.Node,
    device: torch.device,
    known: symbols.Dimensions,
    data_dependent: set[Any],
) -> Verdict:
    """Return whether a node takes and returns tensors whose sizes engines can compute."""
    value = node.meta.get("val")
    values = [value] if isinstance(value, torch.Tensor) else list(value or ())
    tensors = [item for item in values if isinstance(item, torch.Tensor)]
    if not tensors or len(tensors) != len(values):
        return Verdict.no("unsupported_operator", "it does not return tensors alone")
    sources = [source for source in node.all_input_nodes if source.op != "get_attr"]  # not graphs
    taken = [source.meta.get("val") for source in sources]
    taken_tensors = [item for item in taken if isinstance(item, torch.Tensor)]
    sizes: list[Any] = [size for item in (*tensors, *taken_tensors) for size in item.shape]
    sizes += [item for item in taken if not isinstance(item, (torch.Tensor, list, tuple))]
    if not symbols.unbacked_symbols(sizes) <= data_dependent:
        return data_sizes.REFUSED
    for size in sizes:
        if not data_sizes.has_tree(size, known):
            return Verdict.no(
                "unsupported_size",
                f"the size {size} is not integer arithmetic on input sizes",
                "make the dimension static, or compute the size from those of the inputs",
            )
    if any(item.device != device for item in tensors):
        return Verdict.no(
            "wrong_device",
            f"it runs on {tensors[0].device}, the model on {device}",
            "put the whole model on one device",
        )
    return YES


def drops_nothing(node: torch.fx.Node) -> bool:
    """Return whether the dropout of an operator is off, as usual for attention in eval mode."""
    found = node.normalized_arguments(torch.nn.Module(), normalize_to_only_use_kwargs=True)
    given = {} if found is None else found.kwargs
    rate = given.get("dropout_p", given.get("dropout"))
    return rate == 0.0 or given.get("train") is False


def _main_device(graph_module: torch.fx.GraphModule) -> torch.device:
    """Return the most frequent device of the graph's tensors, or the CPU if it has none."""
    counts: dict[torch.device, int] = {}
    for node in graph_module.graph.nodes:
        value = node.meta.get("val")
        if node.op == "call_function" and isinstance(value, torch.Tensor):
            counts[value.device] = counts.get(value.device, 0) + 1
    return max(counts, key=lambda device: counts[device]) if counts else torch.device("cpu")
