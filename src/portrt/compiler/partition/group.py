"""Group the nodes that go to engines; each group becomes a block."""

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
    "it returns a size that is computed from a data-dependent one",
    "return the tensor before its size is changed",
)


class _Support(OperatorSupportBase):
    """Operator support for the partitioner: the nodes of a set."""

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
    """Return the groups that become blocks, and the nodes of rejected groups with the reason.

    Args:
        graph_module: The graph. Sizes that a group returns are computed again outside of it.
        verdicts: Verdicts of its nodes; updated for nodes that fit in no group.
        weights: Placeholder name -> weight, for placeholders that are never written to.
        settings: Read for min_block_size.
        is_branch: Whether the graph is inside another one.
    """
    proposed = _proposed(graph_module, verdicts)
    refused = [n for group in proposed for n in group if _returns_computed_size(n, set(group))]
    while refused:
        verdicts.update(dict.fromkeys(refused, _COMPUTED))
        proposed = _proposed(graph_module, verdicts)
        refused = [n for group in proposed for n in group if _returns_computed_size(n, set(group))]
    proposed = _without_small_groups(graph_module, verdicts, proposed, settings.min_block_size)
    is_full_model = not is_branch and len(proposed) == 1 and verdicts.keys() <= set(proposed[0])
    groups: list[Group] = []
    dropped: list[tuple[torch.fx.Node, Verdict]] = []
    constant = _constant_nodes(proposed, weights)
    for group in proposed:
        verdict = _verdict_on_group(group, graph_module, constant, settings, is_full_model)
        if verdict:
            groups.append(group)
            _return_tensors_only(graph_module.graph, group)
        else:
            dropped += [(node, verdict) for node in group if node in verdicts]
    return groups, dropped


def _without_small_groups(
    graph_module: torch.fx.GraphModule,
    verdicts: dict[torch.fx.Node, Verdict],
    proposed: list[Group],
    min_size: int,
) -> list[Group]:
    """Regroup so that nodes of groups that are too small join larger ones, where that is better.

    torch's CapabilityBasedPartitioner groups a node with its users. If those users depend on a node
    in PyTorch and their group is too small, the node could be in an earlier group.

    Args:
        graph_module: The graph.
        verdicts: Verdicts of its nodes; updated for nodes that are in no group.
        proposed: The partitioner's groups.
        min_size: Number of operators that a group must have.
    """
    alone = _small(proposed, graph_module, min_size)
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
    if len(_small(others, graph_module, min_size).keys() | lost.keys()) >= len(alone):
        return proposed
    verdicts.update((node, verdict) for node, verdict in lost.items() if node in verdicts)
    return others


def _small(
    groups: Iterable[Group], graph_module: torch.fx.GraphModule, min_size: int
) -> dict[torch.fx.Node, Verdict]:
    """Return the nodes of groups that are too small, each with the verdict on its group."""
    found: dict[torch.fx.Node, Verdict] = {}
    for group in groups:
        count = _operator_count(group, graph_module)
        if count < min_size:
            verdict = Verdict.no(
                "block_too_small",
                f"its block has {count} operators, min_block_size is {min_size}",
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


def _returns_computed_size(node: torch.fx.Node, members: set[torch.fx.Node]) -> bool:
    """Return whether a node's tensor leaves the group with a computed data-dependent size.

    A manifest can describe a data-dependent size, but no arithmetic on it.
    """
    if all(user in members for user in node.users):
        return False
    return data_sizes.has_computed_size(node.meta.get("val"))


def _return_tensors_only(graph: torch.fx.Graph, group: Group) -> None:
    """Compute sizes that are used outside of a group again outside, from the group's tensors."""
    members = set(group)
    for node in reversed(group):
        others = [user for user in node.users if user not in members]
        if not others or not torch_internals.is_symbolic_call(node):
            continue
        with graph.inserting_after(group[-1]):
            copy = graph.node_copy(node)
        for user in others:
            user.replace_input_with(node, copy)


def _constant_nodes(groups: Iterable[Group], weights: Mapping[str, Any]) -> set[torch.fx.Node]:
    """Return the nodes of groups without inputs: they have weights, and results of such groups."""
    found: set[torch.fx.Node] = set()
    waiting = list(groups)
    while True:
        constant = [group for group in waiting if _is_constant(group, found, weights)]
        if not constant:
            return found
        found.update(*constant)
        waiting = [group for group in waiting if group not in constant]


def _is_constant(group: Group, known: set[torch.fx.Node], weights: Mapping[str, Any]) -> bool:
    sources = {source for node in group for source in node.all_input_nodes} - set(group) - known
    return all(source.name in weights or not _is_given(source) for source in sources)


def _verdict_on_group(
    group: Group,
    graph_module: torch.fx.GraphModule,
    constant: set[torch.fx.Node],
    settings: Settings,
    is_full_model: bool,
) -> Verdict:
    if group[0] in constant:
        return _CONSTANT
    small = _small([group], graph_module, settings.min_block_size)
    return YES if is_full_model or not small else small[group[0]]


def _is_given(source: torch.fx.Node) -> bool:
    """Return whether a node is a tensor, or a size that is read from one."""
    return isinstance(source.meta.get("val"), (torch.Tensor, torch.SymInt, torch.SymFloat))


def _operator_count(group: Group, graph_module: torch.fx.GraphModule) -> int:
    """Count the operator calls of a group, including those in the graphs inside it."""
    inner = [g for node in group for g in nested.graphs_of_call(graph_module, node).values()]
    outer = sum(
        node.target is not operator.getitem and not torch_internals.is_symbolic_call(node)
        for node in group
    )
    return outer + sum(map(count_operators, inner))
