"""What eager PyTorch leaves undefined: values that another build of it computes otherwise.

Each rule runs a step as one of these other builds would. Every operator here has a row in
docs/numbers.md.
"""

from __future__ import annotations

import functools
import math
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
    """Where squares of an input overflow, results are any numbers or NaN; 0 where they vanish."""
    made = plain(step, args, kwargs)
    if step.target in _OF_SMALL:
        made = _or_zero(made, step.target, rng)
    floats = [x for x in args if isinstance(x, torch.Tensor) and x.is_floating_point()]
    roots = _OWN_ROOTS if step.target in _IN_OWN_DTYPE else _ROOTS
    if all(bool((_finite(x).abs() < roots[x.dtype]).all()) for x in floats):
        return made
    results = list(made) if isinstance(made, (list, tuple)) else [made]
    changed = [_or_any(x, rng) for x in results]
    return changed if isinstance(made, (list, tuple)) else changed[0]


def _or_zero(made: Any, target: str, rng: torch.Generator) -> Any:
    """Results whose squares are below the smallest normal number may be 0."""
    if isinstance(made, (list, tuple)):
        return [_or_zero(made[0], target, rng), *made[1:]]
    least = torch.finfo(made.dtype).tiny * 1e3
    small = made.abs() < (least if "var" in target else math.sqrt(least))
    either = torch.rand(made.shape, generator=rng) < 0.5
    return torch.where(small & either, torch.zeros_like(made), made)


def _or_any(made: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    chosen = torch.randint(0, 2 * len(_ANY), made.shape, generator=rng)
    values = torch.tensor(_ANY * 2).to(made.dtype)[chosen]
    return torch.where(chosen < len(_ANY), values, made)


def _with_mean(step: Step, args: Any, kwargs: dict[str, Any], rng: torch.Generator) -> Any:
    """The mean beside a variance is NaN or infinite where an element is infinite."""
    spread, mean = _of_squares(step, args, kwargs, rng)
    plain_mean = args[0].mean(args[1], kwargs.get("keepdim", False))
    either = torch.rand(mean.shape, generator=rng) < 0.5
    return spread, torch.where(plain_mean.isinf() & either, plain_mean, mean)


def _near_infinity(step: Step, args: Any, kwargs: dict[str, Any], rng: torch.Generator) -> Any:
    """Eager's kernels for whole vectors overflow before those for the rest do."""
    made = plain(step, args, kwargs)
    top = torch.finfo(torch.float32 if made.dtype in _HALF else made.dtype).max
    x = args[0].double()
    if step.target == "F.gelu":
        early = (x > top / 4) & (kwargs.get("approximate", "none") == "none")
    else:
        early = (x.abs() - math.log(top)).abs() < 1
    chosen = torch.randint(0, 3, made.shape, generator=rng)
    infinite = torch.where(x < 0, -math.inf, math.inf) if step.target == "torch.sinh" else math.inf
    values = torch.where(chosen == 0, infinite, x if step.target == "F.gelu" else made.double())
    if step.target == "F.gelu":
        values = torch.where(chosen == 1, math.nan, values)
    return torch.where(early, values.to(made.dtype), made)


def _of_quotients(step: Step, args: Any, kwargs: dict[str, Any], rng: torch.Generator) -> Any:
    """Where a quotient overflows, eager's kernels for whole vectors have NaN for a remainder."""
    made = plain(step, args, kwargs)
    if not made.dtype.is_floating_point:
        return made
    x, y = (args[1], args[0]) if step.target == "special.rmod" else args[:2]
    top = torch.finfo(torch.float32 if made.dtype in _HALF else made.dtype).max
    x, y = torch.as_tensor(x).double(), torch.as_tensor(y).double()
    overflows = (x.abs() / 2 > y.abs() * (top / 4)) & x.isfinite() & (y != 0)
    return torch.where(overflows, _or_nan(made, rng), made)


def _of_products(step: Step, args: Any, kwargs: dict[str, Any], rng: torch.Generator) -> Any:
    """Where terms of a sum overflow, the order of additions decides, unless all sums do."""
    made = plain(step, args, kwargs)
    if not made.dtype.is_floating_point:
        return made
    first, second, bias = _OPERANDS[step.target]
    limit = torch.finfo(made.dtype).max

    def added(x: torch.Tensor, y: torch.Tensor, more: torch.Tensor | None) -> torch.Tensor:
        given = list(args)
        given[first], given[second] = x / limit, y
        if bias < len(args):
            given[bias] = None if more is None else more / limit
        return plain(step, given, kwargs)

    (a, b), (c, d) = _parts(args[first]), _parts(args[second])
    added_to = args[bias] if bias < len(args) else None
    e, f = (None, None) if added_to is None else _parts(added_to)
    zero = None if e is None else torch.zeros_like(e)
    above = added(a, c, e) + added(b, d, zero)
    below = added(a, d, f) + added(b, c, zero)
    overflows = torch.maximum(above, below) > 0.9
    alpha = abs(kwargs.get("alpha", 1))
    if alpha > 1:  # of a factor or of the sums
        x, y = args[first].double(), args[second].double()
        beyond = [limit * (item.abs() * alpha > limit).double() for item in (x, y)]
        beyond[1] /= limit
        scaled = added(beyond[0], torch.ones_like(y), zero)
        overflows |= scaled + added(torch.full_like(x, limit), beyond[1], zero) > 0.5
    always = ((above - below).abs() > 1.1) & (torch.minimum(above, below) < 0.9)
    chosen = torch.randint(0, len(_ANY), made.shape, generator=rng)
    return torch.where(overflows & ~always, torch.tensor(_ANY)[chosen].to(made.dtype), made)


def _of_sums(step: Step, args: Any, kwargs: dict[str, Any], rng: torch.Generator) -> Any:
    """Where partial sums overflow that terms of the other sign bring back, the order decides."""
    made = plain(step, args, kwargs)
    if not made.dtype.is_floating_point or not args[0].dtype.is_floating_point:
        return made
    limit = torch.finfo(made.dtype).max
    above, below = (
        plain(step, [part.nan_to_num(0.0) / limit, *args[1:]], {**kwargs, "dtype": None})
        for part in _parts(args[0])
    )
    if step.target in ("torch.mean", "torch.nanmean"):
        count = args[0].numel() / max(made.numel(), 1)
        above, below = above * count, below * count
    smaller, larger = torch.minimum(above, below), torch.maximum(above, below)
    always = ((above - below).abs() > 1.1) & (smaller < 0.9)
    decides = (larger > 0.9) & (smaller > 0) & ~always
    chosen = torch.randint(0, len(_ANY), made.shape, generator=rng)
    return torch.where(decides, torch.tensor(_ANY)[chosen].to(made.dtype), made)


def _of_factors(step: Step, args: Any, kwargs: dict[str, Any], rng: torch.Generator) -> Any:
    """Where some factors overflow, or underflow, that others bring back, the order decides."""
    made = plain(step, args, kwargs)
    if not made.dtype.is_floating_point:
        return made
    info = torch.finfo(torch.float32 if made.dtype in _HALF else made.dtype)
    logs = args[0].double().abs().log().nan_to_num(0.0, 1e4, -1e4)

    def total(x: torch.Tensor) -> torch.Tensor:
        return x.sum(*args[1:], **{k: v for k, v in kwargs.items() if k == "keepdim"})

    above, below = total(logs.clamp(min=0)), -total(logs.clamp(max=0))
    smaller = torch.minimum(above, below)
    decides = (smaller > 0) & (
        (above > math.log(info.max) - 1) | (below > -math.log(info.tiny) - 1)
    )
    values = torch.tensor([*_ANY, 0.0])
    chosen = torch.randint(0, len(values), made.shape, generator=rng)
    return torch.where(decides, values[chosen].to(made.dtype), made)


def _of_terms(step: Step, args: Any, kwargs: dict[str, Any], rng: torch.Generator) -> Any:
    """A product that overflows may be rounded before it is added, or not."""
    made = plain(step, args, kwargs)
    if not made.dtype.is_floating_point:
        return made
    product = abs(kwargs.get("alpha", kwargs.get("value", 1)))
    for factor in args[1:]:
        product = product * torch.as_tensor(factor).double().abs()
    top = torch.finfo(torch.float32 if made.dtype in _HALF else made.dtype).max
    is_product = step.target == "torch.addcmul" or kwargs.get("alpha", 1) != 1
    finite = [torch.as_tensor(factor).isfinite() for factor in args[1:]]
    overflows = functools.reduce(torch.logical_and, finite, (product > top / 2) & is_product)
    chosen = torch.randint(0, len(_ANY), made.shape, generator=rng)
    return torch.where(overflows, torch.tensor(_ANY)[chosen].to(made.dtype), made)


_HALF = (torch.float16, torch.bfloat16)
_ANY = (float("nan"), float("inf"), -float("inf"), 1.0)


def _parts(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The positive and the negated negative finite elements, in float64."""
    wide = _finite(x.double())
    return wide.clamp(min=0), (-wide).clamp(min=0)


def _of_convolutions(step: Step, args: Any, kwargs: dict[str, Any], rng: torch.Generator) -> Any:
    either = torch.rand((), generator=rng) < 0.5
    return (_of_zeros if either else _of_products)(step, args, kwargs, rng)


# Positions of both factors and of what is added to the sums of products, which need not be there.
_OPERANDS = {
    **dict.fromkeys(("torch.matmul", "torch.bmm", "torch.dot"), (0, 1, 2)),
    **dict.fromkeys(("torch.addmm", "torch.baddbmm"), (1, 2, 0)),
    "torch.einsum": (1, 2, 3),
    "F.linear": (0, 1, 2),
    **dict.fromkeys(
        ("F.conv1d", "F.conv2d", "F.conv3d", "F.conv_transpose1d", "F.conv_transpose2d"), (0, 1, 2)
    ),
}


def _of_scores(step: Step, args: Any, kwargs: dict[str, Any], rng: torch.Generator) -> Any:
    """A query with a score that is not finite, hidden or not, has NaN, zeros or its results."""
    made = plain(step, args, kwargs)
    query, key = args[0].double(), args[1].double()
    scores = query @ key.transpose(-2, -1)
    sums = query.abs() @ key.abs().transpose(-2, -1)
    mask = kwargs.get("attn_mask")
    if mask is not None and mask.dtype != torch.bool:
        scores = scores + mask.double()
    limit = torch.finfo(torch.promote_types(made.dtype, torch.float32)).max
    wild = scores.isnan() | (scores == torch.inf) | ~(sums < limit / 8)
    wild = wild.any(-1, keepdim=True).expand(made.shape)
    chosen = torch.randint(0, 3, made.shape, generator=rng)
    values = torch.tensor([torch.nan, 0.0, 0.0]).to(made.dtype)[chosen]
    return torch.where(wild & (chosen < 2), values, made)


def _of_zeros(step: Step, args: Any, kwargs: dict[str, Any], rng: torch.Generator) -> Any:
    """Infinities may be multiplied by zeros that the kernel inserts, or not."""
    made = plain(step, args, kwargs)
    floats = [x for x in args if isinstance(x, torch.Tensor)]
    if all(bool(x.isfinite().all()) for x in floats):
        return made
    numbers = torch.where(made.isnan(), _or_any(made, rng), made)
    return _or_nan(numbers if any(bool(x.isinf().any()) for x in floats) else made, rng)


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

# Nothing is added to their sums of squares.
_OF_SMALL = frozenset(
    {
        *("torch.norm", "torch.cdist", "torch.var", "torch.std"),
        *("torch.var_mean", "torch.std_mean"),
    }
)

_OWN_ROOTS = {**_ROOTS, torch.float16: 100.0}
# They multiply half precision in half precision.
_IN_OWN_DTYPE = frozenset({"F.normalize", "F.cosine_similarity"})

UNDEFINED: dict[str, Rule] = {
    **dict.fromkeys(
        (".to", ".int", ".long", ".char", ".byte", ".short", ".type_as"),
        _cast,
    ),
    **dict.fromkeys(
        (
            *("F.layer_norm", "F.rms_norm", "F.group_norm", "F.instance_norm", "F.batch_norm"),
            *("F.normalize", "F.cosine_similarity", "F.local_response_norm", "torch.norm"),
            *("torch.var", "torch.std", "torch.cdist"),
        ),
        _of_squares,
    ),
    **dict.fromkeys(("torch.var_mean", "torch.std_mean"), _with_mean),
    **dict.fromkeys(_OPERANDS, _of_products),
    **dict.fromkeys([name for name in _OPERANDS if "conv" in name], _of_convolutions),
    "F.interpolate": _of_zeros,
    "F.scaled_dot_product_attention": _of_scores,
    **dict.fromkeys(("F.gelu", "torch.sinh", "torch.cosh"), _near_infinity),
    **dict.fromkeys(("torch.add", "torch.sub", "torch.addcmul"), _of_terms),
    "torch.prod": _of_factors,
    **dict.fromkeys(
        ("torch.sum", "torch.mean", "torch.nansum", "torch.nanmean", "torch.cumsum"), _of_sums
    ),
    **dict.fromkeys(("torch.remainder", "torch.fmod", "special.rmod"), _of_quotients),
    **dict.fromkeys(("torch.signbit", "torch.copysign"), _sign),
    **dict.fromkeys(("torch.topk", "torch.sort", *_ONE), _ordered),
}
