"""Arithmetic, comparisons, logic, casts: one element of the result for one of the operands."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from fuzz.builder import Builder
from fuzz.values import ALL, FLOATS, INTEGERS, NUMBERS, SIGNED

Draw = Callable[[Builder], None]

_OF_FLOATS = (
    *("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sqrt", "rsqrt", "reciprocal"),
    *("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh"),
    *("atanh", "sigmoid", "erf", "erfc", "frac", "logit", "sinc", "deg2rad", "rad2deg"),
    *("lgamma", "digamma", "i0", "erfinv"),
)
_OF_NUMBERS = ("abs", "neg", "sign", "sgn", "floor", "ceil", "round", "trunc", "square", "relu")
_OF_ALL = (
    *("isfinite", "isinf", "isnan", "isposinf", "isneginf", "signbit", "logical_not", "positive"),
    *("nan_to_num", "exp", "sqrt", "sin", "sigmoid", "reciprocal", "log"),
)
_ACTIVATIONS = (
    *("relu6", "silu", "elu", "celu", "selu", "mish", "hardtanh", "hardsigmoid", "hardswish"),
    *("leaky_relu", "logsigmoid", "softsign", "tanhshrink", "hardshrink", "softshrink", "gelu"),
    *("softplus", "threshold"),
)
_BINARY = (
    *("add", "sub", "mul", "div", "true_divide", "floor_divide", "remainder", "fmod", "pow"),
    *("maximum", "minimum", "fmax", "fmin"),
)
_BINARY_OF_FLOATS = (
    *("atan2", "hypot", "copysign", "logaddexp", "logaddexp2", "nextafter", "xlogy", "ldexp"),
    *("heaviside", "float_power"),
)
_COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
_LOGIC = ("logical_and", "logical_or", "logical_xor")
_BITS = ("bitwise_and", "bitwise_or", "bitwise_xor")
_SHIFTS = ("bitwise_left_shift", "bitwise_right_shift")
_CASTS = (
    *("float", "double", "half", "bfloat16", "bool"),
    *("long", "int", "short", "char", "byte"),
)
_REFLECTED = ("radd", "rsub", "rtruediv", "rfloordiv", "rmod", "rpow", "floordiv")


def _unary(name: str, dtypes: Any, b: Builder) -> None:
    b.add(f"torch.{name}", b.value(dtypes))


def _activation(name: str, b: Builder) -> None:
    x, given = b.float(), {}
    if name == "gelu" and b.boolean():
        given = {"approximate": "tanh"}
    if name in ("elu", "celu") and b.boolean():
        given = {"alpha": b.choice((0.5, 2.0))}
    if name == "leaky_relu" and b.boolean():
        given = {"negative_slope": b.choice((0.2, -0.5, 1.5))}
    if name == "softplus" and b.boolean():
        given = {"beta": b.choice((2.0, 0.5)), "threshold": b.choice((1.0, 30.0))}
    if name == "hardtanh" and b.boolean():
        given = {"min_val": -0.5, "max_val": b.choice((0.0, 3.0))}
    if name == "threshold":
        given = {"threshold": b.choice((0.0, 1.0)), "value": b.choice((20.0, -1.0))}
    if name in ("hardshrink", "softshrink") and b.boolean():
        given = {"lambd": b.choice((0.0, 1.0))}
    b.add(f"F.{name}", x, **given)


def _binary(name: str, dtypes: Any, b: Builder) -> None:
    x = b.value(dtypes)
    scalar = b.int(0, 3) == 3
    y = b.scalar(b.dtype(x)) if scalar else b.like(x)
    given: dict[str, Any] = {}
    if name in ("add", "sub") and b.rarely():
        given["alpha"] = b.choice((2, 1, -1, 0)) if b.dtype(x) not in FLOATS else 0.5
    if name == "div" and b.boolean():
        given["rounding_mode"] = b.choice(("floor", "trunc"))
    b.add(f"torch.{name}", x, y, **given)


def _reflected(name: str, b: Builder) -> None:
    x = b.any()
    b.add(f"special.{name}", x, b.scalar(b.dtype(x)))


def _of_same_kind(name: str, dtypes: Any, b: Builder) -> None:
    x = b.value(dtypes)
    b.add(f"torch.{name}", x, b.like(x, dtypes if b.boolean() else (b.dtype(x),)))


def _shift(name: str, b: Builder) -> None:
    x = b.integer()
    by = b.choice((1, 3, 0, 7)) if b.boolean() else b.same(x)
    b.add(f"torch.{name}", x, by)


def _bitwise_not(b: Builder) -> None:
    b.add("torch.bitwise_not", b.value((*INTEGERS, torch.bool)))


def _where(b: Builder) -> None:
    x = b.any()
    condition = b.like(x, (torch.bool,))
    b.add("torch.where", condition, x, b.scalar(b.dtype(x)) if b.rarely() else b.like(x))


def _where_of_numbers(b: Builder) -> None:
    condition = b.value((torch.bool,))
    b.add("torch.where", condition, b.scalar(b.choice(ALL)), b.scalar(b.choice(ALL)))


def _clamp(b: Builder) -> None:
    x = b.number()
    if b.boolean():
        low, high = b.scalar(b.dtype(x)), b.scalar(b.dtype(x))
        b.add("torch.clamp", x, *b.choice(((low, high), (None, high), (low, None))))
    elif b.boolean():
        b.add("torch.clamp", x, b.like(x), b.like(x))
    else:
        name = b.choice(("clamp_min", "clamp_max"))
        b.add(f"torch.{name}", x, b.scalar(b.dtype(x)) if b.boolean() else b.like(x))


def _lerp(b: Builder) -> None:
    x = b.float()
    y = b.like(x, (b.dtype(x),))
    weight = b.choice((0.5, 0.3, 0.0, 1.0, 2.0)) if b.boolean() else b.like(x, (b.dtype(x),))
    b.add("torch.lerp", x, y, weight)


def _fused(name: str, b: Builder) -> None:
    x = b.float() if name == "addcdiv" else b.number()
    given = {} if b.boolean() else {"value": b.choice((2, -1, 0))}
    b.add(f"torch.{name}", x, b.like(x, (b.dtype(x),)), b.like(x, (b.dtype(x),)), **given)


def _cast(b: Builder) -> None:
    b.add(".to", b.any(), b.choice(ALL))


def _cast_method(b: Builder) -> None:
    b.add(f".{b.choice(_CASTS)}", b.any())


def _type_as(b: Builder) -> None:
    b.add(".type_as", b.any(), b.any())


def _round_decimals(b: Builder) -> None:
    b.add("torch.round", b.float(), decimals=b.choice((1, 2, -1, 0, 3)))


def _isclose(b: Builder) -> None:
    x = b.number()
    b.add("torch.isclose", x, b.like(x, (b.dtype(x),)), equal_nan=b.boolean())


def _gcd(b: Builder) -> None:
    x = b.integer()
    b.add(f"torch.{b.choice(('gcd', 'lcm'))}", x, b.like(x, (b.dtype(x),)))


def _loss(b: Builder) -> None:
    x = b.float()
    name = b.choice(("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"))
    b.add(f"F.{name}", x, b.same(x), reduction=b.choice(("none", "mean", "sum")))


OPERATORS: dict[str, Draw] = {
    **{name: partial(_unary, name, FLOATS) for name in _OF_FLOATS},
    **{f"{name}_of_any": partial(_unary, name, ALL) for name in _OF_ALL},
    **{name: partial(_unary, name, NUMBERS) for name in _OF_NUMBERS},
    **{name: partial(_activation, name) for name in _ACTIVATIONS},
    **{name: partial(_binary, name, NUMBERS) for name in _BINARY},
    **{f"{name}_of_any": partial(_binary, name, ALL) for name in ("add", "mul", "maximum", "div")},
    **{name: partial(_binary, name, (*FLOATS, *SIGNED)) for name in _BINARY_OF_FLOATS},
    **{name: partial(_binary, name, ALL) for name in _COMPARISONS},
    **{name: partial(_reflected, name) for name in _REFLECTED},
    **{name: partial(_of_same_kind, name, ALL) for name in _LOGIC},
    **{name: partial(_of_same_kind, name, (*INTEGERS, torch.bool)) for name in _BITS},
    **{name: partial(_shift, name) for name in _SHIFTS},
    **{name: partial(_fused, name) for name in ("addcmul", "addcdiv")},
    "bitwise_not": _bitwise_not,
    "where": _where,
    "where_of_numbers": _where_of_numbers,
    "clamp": _clamp,
    "lerp": _lerp,
    "to": _cast,
    "to_again": _cast,
    "cast_method": _cast_method,
    "type_as": _type_as,
    "round_decimals": _round_decimals,
    "isclose": _isclose,
    "gcd": _gcd,
    "loss": _loss,
}
