"""Ties of topk, sort and argmax: PyTorch does not define which index of equal values is returned.

An engine may return another one. Its indices are correct if they lead to equal values, and none
occurs twice.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

aten = torch.ops.aten
Close = Callable[[torch.Tensor, torch.Tensor], bool]


@dataclass(frozen=True)
class _Kind:
    """How an operator returns indices.

    Attributes:
        result: Position of the indices in its results; None if it has only one result.
        dim: Default of the argument `dim`.
        keeps: Whether the result always has the dimension, regardless of `keepdim`.
    """

    result: int | None
    dim: int | None
    keeps: bool


_KINDS = {
    aten.argmax.default: _Kind(None, None, False),
    aten.argmin.default: _Kind(None, None, False),
    aten.max.dim: _Kind(1, None, False),
    aten.min.dim: _Kind(1, None, False),
    aten.sort.default: _Kind(1, -1, True),
    aten.topk.default: _Kind(1, -1, True),
}


def differ_in_ties_alone(
    module: torch.fx.GraphModule,
    arguments: Sequence[torch.Tensor],
    position: int,
    got: torch.Tensor,
    wanted: torch.Tensor,
    close: Close,
) -> bool:
    """Return whether an output of a block differs from PyTorch's only in indices of equal values.

    Args:
        module: The graph of the block.
        arguments: Its inputs and weights.
        position: Index of the output.
        got: Output of the engine.
        wanted: Output of PyTorch.
        close: Whether values at the engine's indices (first) are within the tolerance of those at
            PyTorch's; values of an input must be equal.
    """
    results: Any = module.graph.output_node().args[0]
    call = _call_of(results[position])
    if call is None or got.shape != wanted.shape or got.dtype != wanted.dtype:
        return False
    kind = _KINDS[call.target]  # type: ignore[index]
    source, given = _source(call)
    values = _value_of(module, arguments, source)
    dim = given.get("dim", kind.dim)
    if values.dim() == 0:
        return torch.equal(got, wanted)
    if dim is None:
        values, got, wanted, dim = values.reshape(-1), got.reshape(-1), wanted.reshape(-1), 0
    elif not kind.keeps and not given.get("keepdim", False):
        got, wanted = got.unsqueeze(dim), wanted.unsqueeze(dim)
    if bool(((got < 0) | (got >= values.shape[dim])).any()):
        return False
    named = torch.sort(got, dim).values
    if bool((named.diff(dim=dim) == 0).any()):
        return False
    found, expected = values.gather(dim, got), values.gather(dim, wanted)
    if source.op == "placeholder":
        return bool(((found == expected) | (found.isnan() & expected.isnan())).all())
    return close(found, expected)


def _call_of(node: Any) -> torch.fx.Node | None:
    """Return the call whose indices a node is, or None."""
    if not isinstance(node, torch.fx.Node):
        return None
    result = None
    if node.target is operator.getitem:
        node, result = node.args
    kind = _KINDS.get(node.target)
    return node if kind is not None and kind.result == result else None


def _source(call: torch.fx.Node) -> tuple[torch.fx.Node, dict[str, Any]]:
    """Return the searched tensor, and the arguments of the call by name."""
    found = call.normalized_arguments(torch.nn.Module(), normalize_to_only_use_kwargs=True)
    given: dict[str, Any] = {} if found is None else dict(found.kwargs)
    source = call.all_input_nodes[0]
    return source, given


def _value_of(
    module: torch.fx.GraphModule, arguments: Sequence[torch.Tensor], wanted: torch.fx.Node
) -> torch.Tensor:
    kept: list[torch.Tensor] = []

    class Keep(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> Any:
            value = super().run_node(n)
            if n is wanted:
                kept.append(value)
            return value

    with torch.no_grad():
        Keep(module).run(*arguments, enable_io_processing=False)
    return kept[0]
