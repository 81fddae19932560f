"""partition: split a lowered program into blocks for engines and nodes for PyTorch."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch.export import ExportedProgram

from portrt import torch_internals
from portrt.compiler.options.settings import Settings
from portrt.compiler.partition.fold import Folder
from portrt.compiler.partition.group import Group, groups_of
from portrt.compiler.partition.plan import plan_of
from portrt.compiler.partition.verdicts import Supports, verdicts_of
from portrt.compiler.plan import FallbackNode, Plan
from portrt.errors import PartitionError
from portrt.graphs import control_flow, nested
from portrt.graphs.module_path import ModulePath
from portrt.graphs.source_line import source_line
from portrt.graphs.symbols import ProfileRanges
from portrt.verdict import Verdict

logger = logging.getLogger(__name__)

Weights = Mapping[str, tuple[str, torch.Tensor]]
VerdictsOf = Callable[[torch.fx.GraphModule], dict[torch.fx.Node, Verdict]]


def partition(
    program: ExportedProgram,
    settings: Settings,
    supports: Supports,
    excluded: Mapping[str, Verdict] | None = None,
    profile_ranges: ProfileRanges | None = None,
    weights: Weights | None = None,
    supports_all: Supports | None = None,
) -> Plan:
    """Group the nodes that an engine can hold.

    Args:
        program: Lowered; its graph is modified, so do not use it afterwards.
        settings: Read for immutable_weights, min_block_size, torch_executed_ops,
            torch_executed_modules and require_full_compilation.
        supports: Verdict on one node.
        excluded: Node name -> the reason, for nodes that failed to convert or build before.
        profile_ranges: Symbol -> (min, opt, max) in each profile, where it is not the example's.
        weights: Placeholder name -> name and tensor of a weight; None reads the signature, and
            computes constants that an engine cannot.
        supports_all: Verdict of all engines on one node, where `supports` is that of any: a
            constant that one of them cannot hold is computed.

    Raises:
        PartitionError: A node stays in PyTorch although the settings forbid it.
    """
    started = time.perf_counter()
    folder = None
    if weights is None:
        immutable = settings.immutable_weights
        folder = Folder(program, supports_all or supports, immutable_weights=immutable)
        weights = folder.weights

    def verdicts_in(module: torch.fx.GraphModule) -> dict[torch.fx.Node, Verdict]:
        return verdicts_of(module, settings, supports, excluded or {})

    left_out = _cut(program.graph_module, verdicts_in, weights or {}, settings, folder=folder)
    folded = frozenset[str]()
    if folder is not None:
        folder.finish()
        folded = frozenset(folder.folded)
    if settings.require_full_compilation and left_out:
        raise PartitionError(
            f"{len(left_out)} nodes stay in PyTorch:\n{_table(left_out)}",
            "every node in an engine, as require_full_compilation=True requires",
            "change the model, or compile with require_full_compilation=False",
        )
    plan = plan_of(program, weights or {}, left_out, profile_ranges or {})
    plan = dataclasses.replace(plan, folded=folded)
    if len(plan.blocks) == 1 and not left_out:
        (block,) = plan.blocks
        plan = dataclasses.replace(plan, blocks=(dataclasses.replace(block, is_whole_model=True),))
    logger.info(
        "%d blocks of %d nodes, %d nodes in PyTorch, in %.2f s",
        len(plan.blocks),
        sum(block.node_count for block in plan.blocks),
        len(left_out),
        time.perf_counter() - started,
    )
    for item in left_out:
        logger.debug("in PyTorch: %s (%s): %s", item.node, item.target, item.reason)
    return plan


def _cut(
    graph_module: torch.fx.GraphModule,
    verdicts_in: VerdictsOf,
    weights: Mapping[str, Any],
    settings: Settings,
    prefix: str = "",
    folder: Folder | None = None,
) -> list[FallbackNode]:
    """Cut a graph into blocks, and the graphs inside it that stay in PyTorch.

    Returns:
        The nodes that are in no block.
    """
    verdicts = verdicts_in(graph_module)
    if folder is not None:
        folder.fold_refused(verdicts)
    groups, dropped = groups_of(graph_module, verdicts, weights, settings, is_branch=bool(prefix))
    if folder is not None:
        dropped = folder.fold_groups(dropped)
    left_out = [_left_out(node, verdict) for node, verdict in dropped]
    refused = {node.name: verdict for node, verdict in verdicts.items() if not verdict}
    groups = [_with_graphs(group, graph_module) for group in groups]
    torch_internals.fuse(graph_module, groups, f"{prefix}block_")
    _drop_unused_graphs(graph_module)
    for call in list(graph_module.graph.nodes):  # new nodes: fuse_by_partitions replaces them
        inner: list[FallbackNode] = []
        engines = 0
        for branch, path in _branches(graph_module, call, prefix):
            handed = {
                own.name: weights[outer.name]
                for own, outer in control_flow.bound_operands(call, branch)
                if outer.name in weights
            }
            inner += _cut(branch, verdicts_in, handed, settings, path)
            branch.recompile()
            engines += sum(node.op == "call_module" for node in branch.graph.nodes)
        if call.name in refused:
            left_out.append(_left_out(call, refused[call.name], _block_count_note(engines)))
        left_out += inner
    return left_out


def _branches(
    graph_module: torch.fx.GraphModule, call: torch.fx.Node, prefix: str
) -> list[tuple[torch.fx.GraphModule, str]]:
    """Return the graphs of a call that can be cut, each with the prefix for its blocks' names.

    Empty if the graphs take numbers beside tensors, such as the count of a loop, or have a
    data-dependent size: torch.export.load fails on a file with engine calls beside those.
    """
    graphs = (
        nested.graphs_of_call(graph_module, call) if call.target in control_flow.OPERANDS else {}
    )
    taken = [
        node.meta.get("val")
        for graph in graphs.values()
        for node in control_flow.placeholders(graph)
    ]
    if not all(isinstance(value, torch.Tensor) for value in taken):
        return []
    for graph in graphs.values():
        values = [node.meta.get("val") for node in nested.all_nodes(graph)]
        if any(torch_internals.is_data_dependent(value) for value in values if value is not None):
            return []
    return [(graph, f"{prefix}{reader.target}_") for reader, graph in graphs.items()]


def _block_count_note(engines: int) -> str:
    """Return a note on the number of blocks in the graphs of a call that stays in PyTorch."""
    if not engines:
        return ""
    return f"; the rest of its branches is in {engines} block{'' if engines == 1 else 's'}"


def _with_graphs(group: Group, graph_module: torch.fx.GraphModule) -> Group:
    """Extend a group by `get_attr` nodes for the graphs that its nodes call."""
    readers = []
    for node in group:
        for reader in nested.graphs_of_call(graph_module, node):
            with graph_module.graph.inserting_before(node):
                own = graph_module.graph.node_copy(reader)
            node.replace_input_with(reader, own)
            if not reader.users:
                graph_module.graph.erase_node(reader)
                own.name = reader.name
            readers.append(own)
    return readers + group


def _drop_unused_graphs(graph_module: torch.fx.GraphModule) -> None:
    """Delete the submodules of branches that moved to blocks."""
    used = {str(n.target) for n in graph_module.graph.nodes if n.op in ("call_module", "get_attr")}
    for name in [name for name, _ in graph_module.named_children() if name not in used]:
        delattr(graph_module, name)


def _table(left_out: Iterable[FallbackNode]) -> str:
    lines = []
    for item in left_out:
        lines.append(f"    {item.node} ({item.target}): {item.reason}")
        lines += [f"      at {item.source}"] if item.source else []
        lines += [f"      do: {item.remedy}"] if item.remedy else []
    return "\n".join(lines)


def _left_out(node: torch.fx.Node, verdict: Verdict, more: str = "") -> FallbackNode:
    return FallbackNode(
        node=node.name,
        target=_target_name(node),
        reason=f"{verdict.reason}{more}",
        remedy=verdict.remedy,
        source=source_line(node.meta.get("stack_trace")),
        module=ModulePath.of(node.meta).innermost,
        asked=verdict.code == "left_out",
    )


def _target_name(node: torch.fx.Node) -> str:
    if isinstance(node.target, (str, torch._ops.OpOverload)):
        return str(node.target)
    return str(getattr(node.target, "__name__", node.target))
