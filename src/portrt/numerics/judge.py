"""Which differences count: an engine may be as inexact as PyTorch is, and no more.

Where results depend on the last bits of the inputs, engines and PyTorch may differ by more than a
tolerance, and neither is wrong. A float64 run and runs on slightly different inputs show that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from portrt.numerics.compare import compare
from portrt.numerics.precise_run import precise_outputs, shaken

# An engine's error may be this many times PyTorch's own.
ERROR_FACTOR = 10.0

# Number of runs on slightly different inputs.
SHAKES = 2


def excuse_rows(
    rows: Sequence[dict[str, Any]],
    got: Sequence[torch.Tensor],
    wanted: Sequence[torch.Tensor],
    module: torch.fx.GraphModule,
    arguments: Callable[[], Sequence[Any]],
    inputs: int,
) -> None:
    """Set `ok` of differences that PyTorch's own result is uncertain by, and mark them.

    Args:
        rows: Rows of `compare_outputs`; changed in place.
        got: Outputs of the engine.
        wanted: Outputs of PyTorch.
        module: The graph of the block.
        arguments: Returns the block's inputs and weights; called only if a row is not ok.
        inputs: Number of inputs among them.
    """
    if all(row["ok"] for row in rows):
        return
    values = list(arguments())
    again = _outputs(module, values, 0, 0)
    if again is None or not all(
        compare("", *pair)["ok"] for pair in zip(again, wanted, strict=True)
    ):
        return  # the reference is not what PyTorch computes each time
    precise = precise_outputs(module, values)
    seeds = range(0 if has_branches(module) else SHAKES)
    others = [_outputs(module, values, inputs, seed) for seed in seeds]
    for index, row in enumerate(rows):
        if not row["ok"] and is_excused(
            got[index],
            wanted[index],
            row["tolerance"],
            None if precise is None else precise[index],
            [other[index] for other in others if other is not None],
        ):
            row |= {"ok": True, "uncertain": True}


def has_branches(module: torch.fx.GraphModule) -> bool:
    """Return whether a graph calls others: its inputs are not shaken, which may choose another."""
    return any(
        isinstance(node.target, torch._ops.HigherOrderOperator) for node in module.graph.nodes
    )


def _outputs(
    module: torch.fx.GraphModule, values: Sequence[Any], inputs: int, seed: int
) -> Sequence[Any] | None:
    """Return PyTorch's outputs on inputs with other last bits; None if it fails on them."""
    flat = [shaken(value, seed, keep_ties=True) for value in values[:inputs]]
    try:
        with torch.no_grad():
            found = torch.fx.Interpreter(module).run(
                *flat, *values[inputs:], enable_io_processing=False
            )
        return pytree.tree_leaves(found)
    except Exception:
        return None


def is_excused(
    got: torch.Tensor,
    wanted: torch.Tensor,
    tolerance: float,
    precise: torch.Tensor | None,
    shaken: Sequence[torch.Tensor],
) -> bool:
    """Return whether a difference is no larger than what PyTorch's own result is uncertain by.

    Args:
        got: Output of the engine.
        wanted: Output of PyTorch.
        tolerance: As in `compare`; 0 for integers and bools.
        precise: The output of a float64 run, or None.
        shaken: Outputs of PyTorch on inputs with other last bits.
    """
    others = [it for it in (precise, *shaken) if it is not None]
    if got.shape != wanted.shape or any(it.shape != wanted.shape for it in others) or not others:
        return False
    if not (wanted.is_floating_point() or wanted.is_complex()):
        settled = torch.ones_like(wanted, dtype=torch.bool)
        for other in others:
            settled &= other.to(wanted.dtype) == wanted
        return bool((~settled | (got == wanted)).all())
    wide = torch.complex128 if wanted.is_complex() else torch.float64
    a, b = got.to(wide), wanted.to(wide)
    wides = [other.to(wide) for other in others]
    # PyTorch's result is not settled where another run is finite and it is not, or the reverse.
    settled = torch.ones_like(b, dtype=torch.bool)
    for other in wides:
        settled &= _kind(other) == _kind(b)
    if not bool((~settled | (_kind(a) == _kind(b))).all()):
        return False
    counted = settled & torch.isfinite(b)
    if not bool(counted.any()):
        return True
    target = b if precise is None else wides[0]
    uncertain = max(float((other - b).abs()[counted].max()) for other in wides)
    allowed = max(tolerance * float(b.abs()[counted].max()), ERROR_FACTOR * uncertain)
    return float((a - target).abs()[counted].max()) <= allowed


def _kind(value: torch.Tensor) -> torch.Tensor:
    """Return 0 for finite elements, 1 and -1 for infinities, 2 for NaN."""
    if value.is_complex():
        return (~torch.isfinite(value)).to(torch.int8)
    kind = torch.isposinf(value).to(torch.int8) - torch.isneginf(value).to(torch.int8)
    return torch.where(value.isnan(), torch.full_like(kind, 2), kind)
