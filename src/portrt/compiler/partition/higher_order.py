"""Higher-order operators: which of them engines can hold, and the reasons against the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from portrt.graphs.source_line import source_line
from portrt.verdict import YES, Verdict

VerdictsOf = Callable[[torch.fx.GraphModule], Mapping[torch.fx.Node, Verdict]]

# ONNX has If, Loop and Scan for these.
_CONTROL_FLOW = ("cond", "while_loop", "scan", "map_impl")

# torch.export wraps custom operators that write to their inputs in these.
_FUNCTIONALIZED = ("auto_functionalized", "auto_functionalized_v2")


def verdict_on_kind(node: torch.fx.Node) -> Verdict:
    """Return whether engines can hold the operator itself, regardless of its graphs."""
    target = node.target
    if not isinstance(target, torch._ops.HigherOrderOperator):
        return Verdict.no(
            "unsupported_operator",
            "it is a Python function, not an operator",
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
    graphs: Mapping[torch.fx.Node, torch.fx.GraphModule], verdicts_in: VerdictsOf
) -> Any:
    """Return whether engines can hold every node in the graphs of a call.

    Args:
        graphs: The graphs of the call, by the `get_attr` nodes that read them.
        verdicts_in: Returns a verdict for each node of a graph that computes tensors.
    """
    for reader, graph in graphs.items():
        for node, verdict in verdicts_in(graph).items():
            if not verdict:
                place = source_line(node.meta.get("stack_trace"))
                where = f" ({place})" if place else ""
                return Verdict.no(
                    verdict.code,
                    f"{node.target} in its {reader.target}{where}: {verdict.reason}",
                    verdict.remedy,
                )
    return YES
