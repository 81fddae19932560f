"""Translation of `torch.ops.higher_order.map_impl` to a Scan without state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from portrt import torch_internals


def map_impl(body: Any, xs: Sequence[Any], others: Sequence[Any]) -> Any:
    """Call `body` for each row of `xs`, with the same `others`."""
    return torch_internals.onnx_scan(body, [], xs, others)


def built_in() -> tuple[tuple[Any, Callable[..., Any]], ...]:
    """Return the translation of this module."""
    import torch._higher_order_ops.map  # it defines the operator

    return ((torch.ops.higher_order.map_impl, map_impl),)
