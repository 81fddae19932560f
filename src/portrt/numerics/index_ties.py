"""Indices of equal numbers: which of them topk, sort or argmax names, PyTorch leaves open.

An engine may name another one. Its indices are right where they lead to the same numbers, and name
none of them twice.
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
    """How an operator gives indices.

    Attributes:
        result: Which of its results they are; None where it has only one.
        dim: Along which dimension, where the call does not say.
        keeps: The result has the dimension, whatever the call says.
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
    place: int,
    got: torch.Tensor,
    wanted: torch.Tensor,
    close: Close,
) -> bool:
    """Whether an output of a block holds other indices than PyTorch's, of the same numbers.

    Args:
        module: The block.
        arguments: Its inputs and weights.
        place: Which output it is.
        got: From the engine.
        wanted: From PyTorch.
        close: Whether numbers of the engine (first) will do for those of PyTorch; numbers that the
            block is given must be equal.
    """
    results: Any = module.graph.output_node().args[0]
    call = _call_of(results[place])
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
    """The call that a node has the indices of, if it has any."""
    if not isinstance(node, torch.fx.Node):
        return None
    result = None
    if node.target is operator.getitem:
        node, result = node.args
    kind = _KINDS.get(node.target)
    return node if kind is not None and kind.result == result else None


def _source(call: torch.fx.Node) -> tuple[torch.fx.Node, dict[str, Any]]:
    """What is looked through, and the arguments of the call."""
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
