"""Nodes that go to engines -> groups of them, each a block."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch.fx.passes.infra.partitioner import CapabilityBasedPartitioner
from torch.fx.passes.operator_support import OperatorSupportBase

from portrt import torch_internals
from portrt.compiler.options.settings import Settings
from portrt.compiler.partition.block import count_operators
from portrt.compiler.sizes import data_sizes
from portrt.graphs import nested
from portrt.verdict import YES, Verdict

Group = list[torch.fx.Node]

_CONSTANT = Verdict.no(
    "constant_block",
    "its block has no inputs: it computes a constant",
    "compute it once, and keep it as a buffer of the model",
)
_COMPUTED = Verdict.no(
    "unsupported_size",
    "it gives a size that is computed from one that the data decides",
    "return the tensor before its size was changed",
)


class _Support(OperatorSupportBase):
    """What the partitioner asks: is this node in a block?"""

    def __init__(self, allowed: set[torch.fx.Node]) -> None:
        self._allowed = allowed

    def is_node_supported(
        self,
        submodules: Mapping[str, torch.nn.Module],  # noqa: ARG002  (torch's signature)
        node: torch.fx.Node,
    ) -> bool:
        return node in self._allowed


def groups_of(
    graph_module: torch.fx.GraphModule,
    verdicts: dict[torch.fx.Node, Verdict],
    weights: Mapping[str, Any],
    settings: Settings,
    *,
    is_branch: bool,
) -> tuple[list[Group], list[tuple[torch.fx.Node, Verdict]]]:
    """Groups that become blocks, and the nodes of others, each with the reason.

    Args:
        graph_module: The graph. Sizes that a group gives are computed once more outside of it.
        verdicts: Of its nodes. What turns out to be in no group on its own account gets another.
        weights: Placeholder name -> what it holds, of those that no call changes.
        settings: min_block_size.
        is_branch: Whether the graph is a part of another.
    """
    proposed = _proposed(graph_module, verdicts)
    refused = [n for group in proposed for n in group if _gives_a_size_of_others(n, set(group))]
    while refused:
        verdicts.update(dict.fromkeys(refused, _COMPUTED))
        proposed = _proposed(graph_module, verdicts)
        refused = [n for group in proposed for n in group if _gives_a_size_of_others(n, set(group))]
    proposed = _without_small_groups(graph_module, verdicts, proposed, settings.min_block_size)
    whole_model = not is_branch and len(proposed) == 1 and verdicts.keys() <= set(proposed[0])
    groups: list[Group] = []
    dropped: list[tuple[torch.fx.Node, Verdict]] = []
    for group in proposed:
        verdict = _verdict_on_group(group, graph_module, weights, settings, whole_model)
        if verdict:
            groups.append(group)
            _give_tensors_alone(graph_module.graph, group)
        else:
            dropped += [(node, verdict) for node in group if node in verdicts]
    return groups, dropped


def _without_small_groups(
    graph_module: torch.fx.GraphModule,
    verdicts: dict[torch.fx.Node, Verdict],
    proposed: list[Group],
    least: int,
) -> list[Group]:
    """Other groups, where nodes of a group that is too small find a place in a larger one.

    The partitioner puts a node to its users. Where these wait for a node in PyTorch, and make a
    group that is too small, what they take would have had a place in the group before.

    Args:
        graph_module: The graph.
        verdicts: Of its nodes; what finds no place gets one.
        proposed: The partitioner's groups.
        least: Number of operators that a group must have.
    """
    alone = _small(proposed, graph_module, least)
    late: set[torch.fx.Node] = set()
    for node in graph_module.graph.nodes:
        waits = node in verdicts and not verdicts[node]
        if waits or not late.isdisjoint(node.all_input_nodes):
            late.add(node)
    lost = {node: verdict for node, verdict in alone.items() if node in late}
    if len(proposed) == 1 or not lost or len(lost) == len(alone):
        return proposed
    allowed = {node: verdict for node, verdict in verdicts.items() if node not in lost}
    others = _proposed(graph_module, allowed)
    if len(_small(others, graph_module, least).keys() | lost.keys()) >= len(alone):
        return proposed
    verdicts.update((node, verdict) for node, verdict in lost.items() if node in verdicts)
    return others


def _small(
    groups: Iterable[Group], graph_module: torch.fx.GraphModule, least: int
) -> dict[torch.fx.Node, Verdict]:
    """The nodes of groups that are too small, each with the verdict on its group."""
    found: dict[torch.fx.Node, Verdict] = {}
    for group in groups:
        count = _operator_count(group, graph_module)
        if count < least:
            verdict = Verdict.no(
                "block_too_small",
                f"its block has {count} operators, min_block_size is {least}",
                "lower min_block_size",
            )
            found.update(dict.fromkeys(group, verdict))
    return found


def _proposed(
    graph_module: torch.fx.GraphModule, verdicts: Mapping[torch.fx.Node, Verdict]
) -> list[Group]:
    allowed = {node for node, verdict in verdicts.items() if verdict}
    order = {node: index for index, node in enumerate(graph_module.graph.nodes)}
    for node in order:
        if data_sizes.is_computed_in_engine(node, allowed.__contains__):
            allowed.add(node)
    partitioner = CapabilityBasedPartitioner(
        graph_module, _Support(allowed), allows_single_node_partition=True
    )
    found = [sorted(part.nodes, key=order.__getitem__) for part in partitioner.propose_partitions()]
    return sorted(found, key=lambda group: order[group[0]])


def _gives_a_size_of_others(node: torch.fx.Node, members: set[torch.fx.Node]) -> bool:
    """Whether a group gives a tensor with a size that is computed from one that the data decides.

    Only such a size itself has a name in a manifest.
    """
    if all(user in members for user in node.users):
        return False
    return data_sizes.has_computed_size(node.meta.get("val"))


def _give_tensors_alone(graph: torch.fx.Graph, group: Group) -> None:
    """Compute the sizes of a group that others use once more outside, from the group's tensors."""
    members = set(group)
    for node in reversed(group):
        others = [user for user in node.users if user not in members]
        if not others or not torch_internals.is_symbolic_call(node):
            continue
        with graph.inserting_after(group[-1]):
            copy = graph.node_copy(node)
        for user in others:
            user.replace_input_with(node, copy)


def _verdict_on_group(
    group: Group,
    graph_module: torch.fx.GraphModule,
    weights: Mapping[str, Any],
    settings: Settings,
    whole_model: bool,
) -> Verdict:
    members = set(group)
    sources = {source for node in group for source in node.all_input_nodes} - members
    if not any(
        isinstance(source.meta.get("val"), torch.Tensor) and source.name not in weights
        for source in sources
    ):
        return _CONSTANT
    small = _small([group], graph_module, settings.min_block_size)
    return YES if whole_model or not small else small[group[0]]


def _operator_count(group: Group, graph_module: torch.fx.GraphModule) -> int:
    """Operator calls of a group, those in the graphs inside it too."""
    inner = [g for node in group for g in nested.graphs_of_call(graph_module, node).values()]
    outer = sum(
        node.target is not operator.getitem and not torch_internals.is_symbolic_call(node)
        for node in group
    )
    return outer + sum(map(count_operators, inner))
