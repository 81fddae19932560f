"""Nodes at fault in a failed build: those that its error names."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from portrt.compiler.backends.base import RefusedNodesError
from portrt.compiler.building.engines import Failure
from portrt.compiler.plan import Block
from portrt.errors import ConvertError
from portrt.graphs import nested
from portrt.graphs.node_names import nodes_named
from portrt.verdict import Verdict


def operator_names(block: Block) -> set[str]:
    """Return the names of a block's operator calls."""
    return {
        node.name
        for node in nested.all_nodes(block.program.graph_module)
        if nested.is_operator(node)
    }


def nodes_at_fault(block: Block, failures: Iterable[Failure]) -> set[str]:
    """Return the nodes of a block that failures name, or else its control flow, if it has any."""
    names = operator_names(block)
    found = set[str]().union(*(nodes_named_by(failure, names) for failure in failures))
    return found or control_flow(block)  # which builders support least


def nodes_named_by(failure: Failure, names: set[str]) -> set[str]:
    """Return the nodes among these that a failure names."""
    if isinstance(failure, ConvertError):
        return {failure.node} & names if failure.node else set()
    more = failure.nodes if isinstance(failure, RefusedNodesError) else ()
    return nodes_named(" ".join([failure.happened, *more]), names)


def control_flow(block: Block) -> set[str]:
    """Return the names of a block's control-flow operators."""
    return {
        node.name
        for node in block.program.graph.nodes
        if isinstance(node.target, torch._ops.HigherOrderOperator)
    }


def verdict_of(failures: Iterable[Failure]) -> Verdict:
    """Return the reason for nodes that stay in PyTorch because of these failures."""
    found = list(failures)
    reason = "; ".join(dict.fromkeys(failure.happened for failure in found))
    remedy = "; ".join(dict.fromkeys(failure.remedy for failure in found))
    return Verdict.no("build_failed", reason, remedy)
