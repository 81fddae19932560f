"""Runs of a graph in PyTorch that show how exact its results can be.

One is in float64. The others are on inputs that differ in their last bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

_WIDE = {
    torch.float16: torch.float64,
    torch.bfloat16: torch.float64,
    torch.float32: torch.float64,
    torch.complex64: torch.complex128,
}
# A shaken value differs by up to this, relative: some units in the last place.
_SHAKE = {torch.float16: 2e-3, torch.bfloat16: 1e-2, torch.float32: 4e-6, torch.float64: 1e-14}


def widened(value: Any) -> Any:
    """Return a floating-point tensor or dtype as float64, a complex one as complex128."""
    if isinstance(value, torch.Tensor):
        return value.to(_WIDE.get(value.dtype, value.dtype))
    return _WIDE.get(value, value) if isinstance(value, torch.dtype) else value


# One operator's rounding stays below this, relative to its largest result.
_INCONSISTENT = {
    torch.float16: 0.05,
    torch.bfloat16: 0.2,
    torch.float32: 0.01,
    torch.float64: 0.01,
}


class InconsistentKernelsError(Exception):
    """PyTorch's kernels of an operator for two dtypes compute different things."""


class PreciseInterpreter(torch.fx.Interpreter):
    """Runs a graph in float64: dtypes that its calls name are replaced too.

    Raises:
        InconsistentKernelsError: For one operator and the same values, PyTorch's results in
            float64 and in the graph's own dtype differ by more than rounding.
    """

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        args, kwargs = pytree.tree_map(widened, (args, kwargs))
        return pytree.tree_map(widened, super().call_function(target, args, kwargs))

    def run_node(self, n: torch.fx.Node) -> Any:
        found = super().run_node(n)
        target: Any = n.target
        if isinstance(target, torch._ops.OpOverload) and not target._schema.is_mutable:
            args, kwargs = torch.fx.map_arg((n.args, dict(n.kwargs)), self._rounded)
            same = self.call_function(target, args, kwargs)
            self._compare(n, same, target(*args, **kwargs))
        return found

    def _rounded(self, node: torch.fx.Node) -> Any:
        value, own = self.env[node], node.meta.get("val")
        if isinstance(value, torch.Tensor) and isinstance(own, torch.Tensor):
            return value.to(own.dtype)
        return value

    def _compare(self, node: torch.fx.Node, precise: Any, own: Any) -> None:
        for a, b in zip(pytree.tree_leaves(precise), pytree.tree_leaves(own), strict=True):
            if not isinstance(b, torch.Tensor) or not b.is_floating_point() or a.shape != b.shape:
                continue
            finite = torch.isfinite(a) & torch.isfinite(b)
            scale = float(a[finite].abs().max()) if bool(finite.any()) else 0.0
            limit = _INCONSISTENT.get(b.dtype, 0.0) * scale
            if scale and float((a - b)[finite].abs().max()) > limit:
                raise InconsistentKernelsError(str(node.target))


def precise_outputs(
    module: torch.fx.GraphModule, arguments: Sequence[Any]
) -> tuple[Any, ...] | None:
    """Return the outputs in float64; None where an operator does not take it.

    Args:
        module: A graph without guards.
        arguments: Flat arguments, weights included.
    """
    try:
        with torch.no_grad():
            flat = [_copied(widened(value)) for value in arguments]
            found = PreciseInterpreter(module).run(*flat, enable_io_processing=False)
            return tuple(pytree.tree_leaves(found))
    except Exception:
        return None


def shaken(value: Any, seed: int, *, keep_ties: bool) -> Any:
    """Return a floating-point tensor with other last bits; other values as they are.

    Args:
        value: An argument of a graph.
        seed: Seed of the noise.
        keep_ties: Whether equal elements stay equal.
    """
    if not isinstance(value, torch.Tensor) or not value.is_floating_point() or not value.numel():
        return value
    wide = value.detach().to(torch.float64)
    finite = wide[wide.isfinite()].abs()
    size = float(finite.median()) if finite.numel() else 0.0
    if keep_ties:
        noise = torch.sin(wide.nan_to_num() * (12345.678 / (size or 1.0)) + seed)
    else:
        generator = torch.Generator().manual_seed(seed)
        noise = torch.rand(value.shape, generator=generator, dtype=torch.float64) * 2 - 1
    step = noise.to(value.device) * _SHAKE.get(value.dtype, 0.1)
    made = wide * (1 + step) + step * (size or 1.0)
    return torch.where(wide.isfinite(), made, wide).to(value.dtype)


def _copied(value: Any) -> Any:
    """Return a copy, as the graph may write to its arguments."""
    return value.clone() if isinstance(value, torch.Tensor) else value
