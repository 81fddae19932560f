"""Operators that are called with graphs: which of them engines can hold, and why not the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from portrt.graphs.source_line import source_line
from portrt.verdict import YES, Verdict

VerdictsOf = Callable[[torch.fx.GraphModule], Mapping[torch.fx.Node, Verdict]]

# What ONNX has a form for: If, Loop and Scan.
_CONTROL_FLOW = ("cond", "while_loop", "scan", "map_impl")

# torch.export leaves them around an operator that writes to its inputs.
_FUNCTIONALIZED = ("auto_functionalized", "auto_functionalized_v2")


def verdict_on_kind(node: torch.fx.Node) -> Verdict:
    """Whether engines could have the operator itself, whatever its graphs hold."""
    target = node.target
    if not isinstance(target, torch._ops.HigherOrderOperator):
        return Verdict.no(
            "unsupported_operator",
            "it is a Python function and no operator",
            "write it with operators of torch",
        )
    if str(target) in _CONTROL_FLOW:
        return YES
    if str(target) in _FUNCTIONALIZED:
        return Verdict.no(
            "unsupported_operator",
            f"{node.args[0]} writes to its inputs",
            "give the operator a form that returns new tensors",
        )
    return Verdict.no(
        "unsupported_operator",
        f"ONNX has no form for the operator {target!s}, which calls a graph",
        "write it with plain operators, or with torch.cond, while_loop or scan",
    )


def verdict_on_graphs(
    graphs: Mapping[torch.fx.Node, torch.fx.GraphModule], judged: VerdictsOf
) -> Any:
    """Whether engines could have everything inside the graphs of a call.

    Args:
        graphs: The graphs that the operator is called with, by the nodes that read them.
        judged: A verdict for each node of a graph that computes tensors.
    """
    for reader, graph in graphs.items():
        for node, verdict in judged(graph).items():
            if not verdict:
                place = source_line(node.meta.get("stack_trace"))
                where = f" ({place})" if place else ""
                return Verdict.no(
                    verdict.code,
                    f"{node.target} in its {reader.target}{where}: {verdict.reason}",
                    verdict.remedy,
                )
    return YES
