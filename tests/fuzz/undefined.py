"""What eager PyTorch leaves undefined: values that another build of it computes otherwise.

Each rule runs a step as one of these other builds would. Every operator here has a row in
docs/numbers.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from fuzz.graph import Step, plain

Rule = Callable[[Step, Any, dict[str, Any], torch.Generator], Any]


def _cast(step: Step, args: Any, kwargs: dict[str, Any], rng: torch.Generator) -> Any:
    """Floats that the integer dtype does not have become any integer."""
    made = plain(step, args, kwargs)
    return _any_where_out_of_range(args[0], made, rng)


def _any_where_out_of_range(
    x: torch.Tensor, made: torch.Tensor, rng: torch.Generator
) -> torch.Tensor:
    integral = not made.dtype.is_floating_point and made.dtype != torch.bool
    if not x.dtype.is_floating_point or not integral:
        return made
    info = torch.iinfo(made.dtype)
    wide = x.double().trunc()
    inside = (wide >= info.min) & (wide < float(info.max) + 1)
    return torch.where(inside, made, _noise(made, rng))


def _noise(made: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    if made.dtype.is_floating_point:
        return torch.randn(made.shape, generator=rng).to(made.dtype)
    info = torch.iinfo(made.dtype)
    return torch.randint(info.min, info.max, made.shape, generator=rng).to(made.dtype)


def _ordered(step: Step, args: Any, kwargs: dict[str, Any], rng: torch.Generator) -> Any:
    """Indices of equal elements are in any order."""
    values, indices = plain(step, args, kwargs)
    x = args[0]
    if kwargs.get("stable") or not x.dim():
        return values, indices
    dim = kwargs.get("dim", args[2] if len(args) > 2 else args[1] if step.target in _ONE else -1)
    order = torch.randperm(x.shape[dim], generator=rng)
    given = plain(step, [x.index_select(dim, order), *args[1:]], kwargs)
    return given[0], order[given[1]] if given[1].numel() else given[1]


_ONE = ("torch.median", "torch.nanmedian", "torch.mode")


def _sign(step: Step, args: Any, kwargs: dict[str, Any], rng: torch.Generator) -> Any:
    """NaN has either sign."""
    signs = args[-1]
    if not isinstance(signs, torch.Tensor) or not signs.dtype.is_floating_point:
        return plain(step, args, kwargs)
    either = torch.where(torch.rand(signs.shape, generator=rng) < 0.5, 1.0, -1.0).to(signs.dtype)
    return plain(step, [*args[:-1], torch.where(signs.isnan(), either, signs)], kwargs)


def _of_squares(step: Step, args: Any, kwargs: dict[str, Any], rng: torch.Generator) -> Any:
    """Where squares of an input overflow, results are any numbers or NaN."""
    made = plain(step, args, kwargs)
    floats = [x for x in args if isinstance(x, torch.Tensor) and x.is_floating_point()]
    if all(bool((_finite(x).abs() < _ROOTS[x.dtype]).all()) for x in floats):
        return made
    return _or_nan(made, rng)


def _of_zeros(step: Step, args: Any, kwargs: dict[str, Any], rng: torch.Generator) -> Any:
    """Infinities may be multiplied by zeros that the kernel inserts, or not."""
    made = plain(step, args, kwargs)
    floats = [x for x in args if isinstance(x, torch.Tensor)]
    return made if all(bool(x.isfinite().all()) for x in floats) else _or_nan(made, rng)


def _or_nan(made: Any, rng: torch.Generator) -> Any:
    results = list(made) if isinstance(made, (list, tuple)) else [made]
    nan = torch.tensor(float("nan"))
    changed = [torch.where(torch.rand(x.shape, generator=rng) < 0.5, x, nan.to(x)) for x in results]
    return changed if isinstance(made, (list, tuple)) else changed[0]


def _finite(x: torch.Tensor) -> torch.Tensor:
    return torch.where(x.isfinite(), x, 0)


# Sums of squares of this size may overflow; of half precision they are in float32.
_ROOTS = {
    torch.float64: 1e152,
    torch.float32: 1e17,
    torch.float16: float("inf"),
    torch.bfloat16: 1e17,
}

UNDEFINED: dict[str, Rule] = {
    **dict.fromkeys(
        (".to", ".int", ".long", ".char", ".byte", ".short", ".type_as"),
        _cast,
    ),
    **dict.fromkeys(
        (
            *("F.layer_norm", "F.rms_norm", "F.group_norm", "F.instance_norm", "F.batch_norm"),
            *("F.normalize", "F.cosine_similarity", "F.local_response_norm", "torch.norm"),
            *("torch.var", "torch.std", "torch.var_mean", "torch.std_mean", "torch.cdist"),
        ),
        _of_squares,
    ),
    **dict.fromkeys(
        ("F.conv1d", "F.conv2d", "F.conv3d", "F.conv_transpose1d", "F.conv_transpose2d"), _of_zeros
    ),
    **dict.fromkeys(("torch.signbit", "torch.copysign"), _sign),
    **dict.fromkeys(("torch.topk", "torch.sort", *_ONE), _ordered),
}
