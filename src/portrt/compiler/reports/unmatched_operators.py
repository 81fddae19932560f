"""Warnings of names in `torch_executed_ops` that match no operator of a model."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable

import torch

from portrt.compiler.options.values import operator_name
from portrt.graphs import nested

logger = logging.getLogger(__name__)


def warn_of_unmatched_operators(
    names: Iterable[str], captured: torch.fx.GraphModule, lowered: torch.fx.GraphModule
) -> None:
    """Log the names that match nothing, such as misspelled ones.

    Args:
        names: Names of operators, with or without an overload.
        captured: The graph before lowering, for the reason.
        lowered: The graph whose operators the names select.
    """
    before, known = _operators(captured), _operators(lowered)
    for name in sorted(set(names) - known):
        if name in before:
            hint = "; torch decomposes it first"
        else:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
        logger.warning("torch_executed_ops has %r, which matches no operator%s", name, hint)


def _operators(graph_module: torch.fx.GraphModule) -> set[str]:
    found = {
        operator_name(node.target)
        for node in nested.all_nodes(graph_module)
        if nested.is_operator(node)
    }
    return found | {name.rpartition(".")[0] for name in found}
