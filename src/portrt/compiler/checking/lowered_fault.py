"""The operator that lowering makes wrong: values of the captured and of the lowered program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from portrt import torch_internals
from portrt.compiler.checking.captured import run_captured
from portrt.compiler.checking.fault import Fault, described, difference, tolerance
from portrt.numerics.compare import compare


def fault_in_lowering(
    captured: ExportedProgram, lowered: ExportedProgram, flat: Sequence[Any]
) -> Fault | None:
    """Return the first operator of the captured program that the lowered one does not reproduce.

    Args:
        captured: The captured program.
        lowered: The same program lowered, uncut.
        flat: Flat inputs on which their results differ.
    """
    wanted: dict[str, Any] = {}
    found: dict[str, Any] = {}
    run_captured(captured, flat, record=wanted)
    run_captured(lowered, flat, record=found)
    made: dict[str, list[torch.Tensor]] = {}  # by the node that they come from
    for node in lowered.graph.nodes:
        if node.name in found:
            tensors = [it for it in pytree.tree_leaves(found[node.name]) if _is_tensor(it)]
            made.setdefault(torch_internals.origin_of(node), []).extend(tensors)
    rows = {
        node: _row(node, wanted[node.name], made[node.name])
        for node in captured.graph.nodes
        if node.name in wanted and made.get(node.name)
    }
    wrong = _behind_outputs(captured, rows)
    first = next((node for node in captured.graph.nodes if node in wrong and node in rows), None)
    if first is None:
        return None
    row = rows[first]
    assert row is not None
    inputs = [wanted.get(source.name) for source in first.all_input_nodes]
    return Fault(
        f"{described(first, inputs)} differs from PyTorch once it is decomposed: {difference(row)}",
        tolerance(row),
        whole=frozenset([first.name]),
    )


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


def _row(
    node: torch.fx.Node, wanted: Any, made: Sequence[torch.Tensor]
) -> Mapping[str, Any] | None:
    """Return the comparison of the worst tensor of a node; None if all are reproduced."""
    tensors = [wanted] if _is_tensor(wanted) else []
    if isinstance(wanted, (tuple, list)):
        used = {user.args[1] for user in node.users if len(user.args) > 1 and user.users}
        tensors = [it for index, it in enumerate(wanted) if _is_tensor(it) and index in used]
    for tensor in tensors:
        alike = [it for it in made if it.shape == tensor.shape and it.dtype == tensor.dtype]
        compared = [compare(node.name, it, tensor) for it in alike or made]
        if not any(row["ok"] for row in compared):
            return compared[-1]
    return None


def _behind_outputs(
    captured: ExportedProgram, rows: Mapping[torch.fx.Node, Mapping[str, Any] | None]
) -> set[torch.fx.Node]:
    """Return the nodes that differ, or are unknown, and lead to an output through such nodes."""
    found: set[torch.fx.Node] = set()
    pending = list(captured.graph.output_node().all_input_nodes)
    # What is written to a buffer or an input leads out as well.
    pending += [node for node in captured.graph.nodes if _writes(node)]
    while pending:
        node = pending.pop()
        if node in found or node.op != "call_function" or (node in rows and rows[node] is None):
            continue
        found.add(node)
        pending += node.all_input_nodes
    return {node for node in found if rows.get(node) is not None}


def _writes(node: torch.fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable
