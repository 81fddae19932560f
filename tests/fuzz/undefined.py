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


def _shift(step: Step, args: Any, kwargs: dict[str, Any], rng: torch.Generator) -> Any:
    """A shift by less than 0, or by the number of bits or more, is undefined."""
    made = plain(step, args, kwargs)
    by = args[1] if isinstance(args[1], torch.Tensor) else torch.tensor(args[1])
    inside = (by >= 0) & (by < torch.iinfo(made.dtype).bits)
    return torch.where(inside, made, _noise(made, rng))


UNDEFINED: dict[str, Rule] = {
    **dict.fromkeys(
        (".to", ".int", ".long", ".char", ".byte", ".short", ".type_as"),
        _cast,
    ),
    **dict.fromkeys(("torch.topk", "torch.sort", *_ONE), _ordered),
    **dict.fromkeys(("torch.bitwise_left_shift", "torch.bitwise_right_shift"), _shift),
}
