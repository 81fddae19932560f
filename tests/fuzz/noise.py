"""Eager with other roundings: shows which results do not depend on how a step is rounded."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch

from fuzz.graph import Step, plain
from fuzz.undefined import UNDEFINED
from fuzz.values import FLOATS

# Units in the last place by which the result of an inexact step may differ.
_ULPS = 4.0
_EPS = {dtype: torch.finfo(dtype).eps for dtype in FLOATS}

# They return elements as they are; of the zeros of others the sign is not determined.
_MOVES = frozenset(
    {
        *("reshape", "flatten", "unsqueeze", "squeeze", "transpose", "permute", "movedim"),
        *("expand", "expand_as", "narrow", "select", "getitem", "cat", "stack", "split", "chunk"),
        *("tensor_split", "unbind", "flip", "roll", "rot90", "diagonal", "repeat", "tile"),
        *("repeat_interleave", "unfold", "clone", "broadcast_tensors", "atleast_1d", "atleast_2d"),
        *("atleast_3d", "hstack", "vstack", "dstack", "contiguous", "detach", "meshgrid"),
        *("index_select", "gather", "take_along_dim", "take", "neg", "pixel_shuffle"),
        *("pixel_unshuffle", "channel_shuffle", "embedding", "copysign"),
    }
)

# Their results are exact: elements are moved, selected or compared.
_EXACT = _MOVES | {
    *("abs", "sign", "sgn", "floor", "ceil", "round", "trunc", "relu", "positive"),
    *("maximum", "minimum", "fmax", "fmin", "clamp", "clamp_min", "clamp_max", "where"),
    *("amax", "amin", "max", "min", "sort", "topk", "cummax", "cummin", "median", "nanmedian"),
    *("mode", "aminmax", "heaviside", "nan_to_num", "masked_fill", "isclose"),
    *("hardtanh", "relu6", "threshold", "hardshrink", "max_pool1d", "max_pool2d", "max_pool3d"),
    *("adaptive_max_pool1d", "adaptive_max_pool2d", "nextafter", "tril", "triu", "diag"),
    *("diag_embed", "pad", "scatter", "index_fill", "slice_scatter", "select_scatter"),
    *("zeros", "ones", "full", "zeros_like", "ones_like", "full_like", "new_zeros", "eye"),
    *("new_ones",),
}

# Their inputs may be rounded, too: they add many terms, or subtract what is nearly equal.
_ACCUMULATES = frozenset(
    {
        *("sum", "mean", "nansum", "nanmean", "prod", "var", "std", "var_mean", "std_mean"),
        *("norm", "cumsum", "cumprod", "logcumsumexp", "logsumexp", "softmax", "log_softmax"),
        *("softmin", "scatter_add", "scatter_reduce", "index_add", "index_put", "matmul", "bmm"),
        *("baddbmm", "addmm", "linear", "dot", "einsum", "conv1d", "conv2d", "conv3d"),
        *("conv_transpose1d", "conv_transpose2d", "scaled_dot_product_attention", "cdist"),
        *("layer_norm", "rms_norm", "group_norm", "instance_norm", "batch_norm", "normalize"),
        *("cosine_similarity", "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d"),
        *("adaptive_avg_pool2d", "interpolate", "local_response_norm", "mse_loss", "l1_loss"),
        *("smooth_l1_loss", "huber_loss", "lerp", "addcmul", "addcdiv", "hypot", "linspace"),
    }
)

# Of these the absolute error is bounded, not the relative one: fast kernels, or a difference from 1
# where an argument is negative.
_ABSOLUTE = {"sigmoid": 2e-7, "silu": 2e-6, "glu": 2e-6}
_ABSOLUTE_BELOW_0 = {"elu": 3e-7, "celu": 3e-7, "selu": 3e-7}
# Of float64 the error is that of an angle, except near 0.
_OF_ANGLES = frozenset({"sin", "cos"})
# The mean is subtracted after the scaling, or before it.
_SUBTRACTS_MEAN = frozenset({"layer_norm", "group_norm", "instance_norm"})

_LOGARITHMS = frozenset({"logsumexp", "logcumsumexp", "logaddexp", "logaddexp2", "log_softmax"})
_NEAR_ARGUMENT = frozenset({"tanhshrink"})


class Noisy:
    """Calls steps with noise of a few units in the last place; for `graph.evaluate`."""

    def __init__(self, seed: int, ulps: float = _ULPS) -> None:
        self._rng = torch.Generator().manual_seed(seed)
        self._ulps = ulps

    def __call__(self, step: Step, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        made = self._call(step, args, kwargs)
        name = step.target.rpartition(".")[2]
        results = list(made) if isinstance(made, (list, tuple)) else [made]
        if name in _MOVES or not any(_is_float(value) for value in results):
            return made
        if name in _EXACT:
            return [self._signed(value) for value in results]
        exact = _in_float64(step, args, kwargs, len(results))
        if name in _ACCUMULATES and not _all_equal(results, exact):  # of float64 nothing is known
            made = self._call(step, self._noisy(args), self._noisy(kwargs))
            results = list(made) if isinstance(made, (list, tuple)) else [made]
        return [
            self._changed(name, args, kwargs, value, wide) if _is_float(value) else value
            for value, wide in zip(results, exact, strict=True)
        ]

    def _changed(
        self,
        name: str,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        value: torch.Tensor,
        exact: torch.Tensor | None,
    ) -> torch.Tensor:
        if name in _NEAR_ARGUMENT:  # a difference of nearly equal numbers
            near = self._rounded(args[0], None) - (args[0] - value)
            value = torch.where(value.isfinite(), near, value)
        if name == "gelu":  # x (1 + erf(x)) for negative x
            size = torch.where((args[0] < 0) & (args[0] > -10), args[0], 0)
            value = self._moved(value, size * _EPS[_computed_in(value.dtype)])
        if name in _SUBTRACTS_MEAN:
            eps = _EPS[_computed_in(value.dtype)]
            value = self._moved(value, 4 * eps * _scaled(name, args, kwargs))
        if name == "sinc" and value.dtype == torch.float64:  # two roundings near 1
            value = self._moved(value, torch.tensor(_EPS[value.dtype]))
        if name in _OF_ANGLES and value.dtype == torch.float64:
            value = self._moved(value, args[0].double().abs().clamp(max=1) * _EPS[value.dtype])
        if name in _LOGARITHMS:  # of sums near 1
            noise = torch.rand(value.shape, generator=self._rng) * 2 - 1
            value = torch.where(
                value.abs() < 1, value + noise.to(value.dtype) * (4 * _EPS[value.dtype]), value
            )
        return self._shifted(name, self._signed(self._rounded(value, exact)))

    def _moved(self, value: torch.Tensor, bound: torch.Tensor) -> torch.Tensor:
        """With an error of so much at most."""
        noise = torch.rand(value.shape, generator=self._rng, dtype=torch.float64) * 2 - 1
        return (value.double() + noise * bound.double()).to(value.dtype)

    def _shifted(self, name: str, value: torch.Tensor) -> torch.Tensor:
        """With an absolute error, which makes some small values 0."""
        if name in _ABSOLUTE_BELOW_0:
            return torch.where(value < 0, self._off_by(_ABSOLUTE_BELOW_0[name], value), value)
        return self._off_by(_ABSOLUTE[name], value) if name in _ABSOLUTE else value

    def _off_by(self, bound: float, value: torch.Tensor) -> torch.Tensor:
        if value.dtype == torch.float64:
            return value
        noise = (torch.rand(value.shape, generator=self._rng) * 2 - 1) * bound
        small = value.abs() < bound
        either = torch.rand(value.shape, generator=self._rng) < 0.5
        shifted = torch.where(small & either, torch.zeros_like(value), value + noise)
        return torch.where(value.isfinite(), shifted, value).to(value.dtype)

    def _signed(self, value: torch.Tensor) -> torch.Tensor:
        """With any signs of zeros."""
        if not _is_float(value):
            return value
        negative = torch.rand(value.shape, generator=self._rng) < 0.5
        return torch.where((value == 0) & negative, -value, value)

    def _call(self, step: Step, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        rule = UNDEFINED.get(step.target)
        return plain(step, args, kwargs) if rule is None else rule(step, args, kwargs, self._rng)

    def _noisy(self, arg: Any) -> Any:
        if _is_float(arg):
            return self._rounded(arg, None)
        if isinstance(arg, dict):
            return {name: self._noisy(item) for name, item in arg.items()}
        return type(arg)(map(self._noisy, arg)) if isinstance(arg, (list, tuple)) else arg

    def _rounded(self, value: torch.Tensor, exact: torch.Tensor | None) -> torch.Tensor:
        """With noise where the value is inexact; a float64 is where it is no float32."""
        wide = value.double()
        known = exact is not None and exact.shape == value.shape
        if value.dtype == torch.float64:
            inexact = wide != wide.float().double()
        elif known and exact is not None:
            inexact = wide != exact
        else:
            inexact = torch.ones_like(wide, dtype=torch.bool)
        factor = torch.rand(wide.shape, generator=self._rng, dtype=torch.float64) * 2 - 1
        noisy = (wide * (1 + factor * (self._ulps * _EPS[value.dtype]))).to(value.dtype)
        return torch.where(inexact & wide.isfinite(), noisy, value)


def _scaled(name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> torch.Tensor:
    """Return the size of the terms of a norm whose difference is the result, in its shape."""
    x = args[0].double()
    if name == "layer_norm":
        rows, weight = x.flatten(x.dim() - len(args[1])), args[2:3]
    else:
        groups = args[1] if name == "group_norm" else x.shape[1]
        rows, weight = x.reshape(x.shape[0], groups, -1), args[2:3] if name == "group_norm" else ()
    eps = kwargs.get("eps", 1e-5)
    spread = torch.sqrt(rows.var(-1, keepdim=True, unbiased=False) + eps)
    largest = rows.abs().amax(-1, keepdim=True) if rows.numel() else rows.abs()
    sizes = (largest / spread).nan_to_num(0.0, 0.0).expand_as(rows).reshape(x.shape)
    given = [item for item in (*weight, kwargs.get("weight")) if isinstance(item, torch.Tensor)]
    return sizes * max((float(item.abs().max()) for item in given if item.numel()), default=1.0)


def _computed_in(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def _in_float64(
    step: Step, args: Sequence[Any], kwargs: dict[str, Any], count: int
) -> list[torch.Tensor | None]:
    """What the step returns for the same inputs in float64, None where it takes none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = plain(step, widened(args), widened(kwargs))
    except Exception:
        return [None] * count
    results = list(made) if isinstance(made, (list, tuple)) else [made]
    return [value if value.dtype == torch.float64 else None for value in results]


def widened(arg: Any) -> Any:
    """The argument with float64 for other floating-point dtypes."""
    if _is_float(arg):
        return arg.double()
    if isinstance(arg, torch.dtype):
        return torch.float64 if arg.is_floating_point else arg
    if isinstance(arg, dict):
        return {name: widened(item) for name, item in arg.items()}
    return type(arg)(map(widened, arg)) if isinstance(arg, (list, tuple)) else arg


def in_float64(step: Step, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Call in float64; for `graph.evaluate`."""
    if step.target in (".float", ".half", ".bfloat16"):
        return args[0].double()
    return plain(step, widened(args), widened(kwargs))


def _all_equal(results: Sequence[Any], exact: Sequence[torch.Tensor | None]) -> bool:
    return all(
        wide is not None and value.dtype != torch.float64 and torch.equal(value.double(), wide)
        for value, wide in zip(results, exact, strict=True)
        if _is_float(value)
    )


def _is_float(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype.is_floating_point
