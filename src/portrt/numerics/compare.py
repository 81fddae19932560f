"""Comparison of outputs with their reference, with a tolerance per dtype."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from portrt.numerics.index_ties import differ_in_ties_alone
from portrt.targets.backends import find

# Largest difference from PyTorch, relative to the largest magnitude of the output. Integers and
# bools must be equal.
TOLERANCES = {
    torch.float64: 1e-6,
    torch.float32: 1e-3,
    torch.float16: 2e-2,
    torch.bfloat16: 5e-2,
}


# The same by the names of an engine's precision. A quantized value may be off by one of 255 steps.
_TOLERANCES_BY_NAME = {
    "tf32": 5e-3,
    "fp16": TOLERANCES[torch.float16],
    "bf16": TOLERANCES[torch.bfloat16],
    "int8": 2e-2,
    "fp8": 1e-1,
}


def arithmetic_of(backend: str, build: Mapping[str, Any]) -> str:
    """Return what an engine computes in: its precision, and TF32 if its backend has it.

    Args:
        backend: Name of the engine's backend.
        build: `build` of the engine's entry.
    """
    precision = str(build.get("precision"))
    row = find(backend)
    tf32 = row is not None and row.tf32 and "no_tf32" not in (build.get("flags") or ())
    return f"{precision}+tf32" if tf32 else precision


def compare_outputs(
    names: Sequence[str],
    got: Sequence[torch.Tensor],
    wanted: Sequence[torch.Tensor],
    precision: object,
    module: torch.fx.GraphModule,
    arguments: Callable[[], Sequence[torch.Tensor]],
) -> list[dict[str, Any]]:
    """Compare the outputs of a block; indices may differ where the indexed values are equal.

    Args:
        names: Names of the outputs.
        got: Outputs of the engine.
        wanted: Outputs of PyTorch.
        precision: As for `compare`.
        module: The graph of the block.
        arguments: Returns the block's inputs and weights; called only if indices differ.

    Returns:
        A row for each output, see `compare`.
    """
    rows = [compare(*row, precision) for row in zip(names, got, wanted, strict=True)]
    for position, row in enumerate(rows):
        if row["ok"] or wanted[position].is_floating_point():
            continue
        if differ_in_ties_alone(
            module,
            arguments(),
            position,
            got[position],
            wanted[position],
            lambda found, expected: bool(compare("", found, expected, precision)["ok"]),
        ):
            row |= {"ok": True, "ties": int((got[position] != wanted[position]).sum())}
    return rows


def compare(
    name: str, got: torch.Tensor, wanted: torch.Tensor, precision: object = None
) -> dict[str, Any]:
    """Compare an output with its reference.

    Args:
        name: Name of the output.
        got: Output of the engine.
        wanted: Output of PyTorch.
        precision: What the engine computes in, such as "fp16+int8". A floating-point output has the
            largest tolerance of these and its own dtype.

    Returns:
        The largest absolute difference, the same relative to the largest magnitude, the tolerance,
        and whether the difference is within it.
    """
    tolerance = TOLERANCES.get(wanted.dtype, 0.0)
    if tolerance > 0:
        parts = str(precision).split("+")
        tolerance = max(tolerance, *(_TOLERANCES_BY_NAME.get(part, 0.0) for part in parts))
    if got.shape != wanted.shape:  # of data-dependent sizes
        return {
            "name": name,
            "max_abs": f"the shape {tuple(got.shape)} for {tuple(wanted.shape)}",
            "max_rel": "inf",
            "tolerance": tolerance,
            "ok": False,
        }
    wide = torch.complex128 if wanted.dtype.is_complex else torch.float64
    a, b = got.to(wide), wanted.to(wide)
    same = (a == b) | (a.isnan() & b.isnan())
    difference = torch.where(same, torch.zeros_like(a), a - b).abs()
    largest = float(difference.max()) if difference.numel() else 0.0
    finite = b.abs()[torch.isfinite(b)]
    scale = float(finite.max()) if finite.numel() else 0.0
    relative = largest / scale if scale else largest
    return {
        "name": name,
        "max_abs": _json(largest),
        "max_rel": _json(relative),
        "tolerance": tolerance,
        # False for NaN. Not every int64 is exact in float64, hence the second condition.
        "ok": relative <= tolerance and (tolerance > 0 or torch.equal(got, wanted)),
    }


def worst_difference(check: Mapping[str, Any] | None) -> str:
    """Return ", relative difference ..." of the worst output for the log, or ""."""
    rows = (check or {}).get("outputs", (check or {}).get("simulated", []))
    found = [row["max_rel"] for row in rows if isinstance(row, Mapping)]
    numbers = [value for value in found if isinstance(value, float)]
    return f", relative difference {max(numbers):.1e}" if numbers else ""


def _json(value: float) -> float | str:
    """Return NaN and infinities as text, because JSON has neither."""
    return float(f"{value:.3g}") if abs(value) < float("inf") else str(value)
