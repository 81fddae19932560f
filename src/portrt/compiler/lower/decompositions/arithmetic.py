"""Arithmetic: integers and bools where ONNX has floats only, and edge cases of floats."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from typing import Any

import torch

from portrt.compiler.lower.decompositions.signs import is_negative, with_sign

aten = torch.ops.aten
Number = int | float | bool
_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def _is_integral(x: torch.Tensor) -> bool:
    return not x.dtype.is_floating_point and not x.dtype.is_complex


def _unchanged_if_integral(x: torch.Tensor) -> Any:
    """Return integers unchanged: ONNX's Ceil, Floor and Round take floats only."""
    return x.clone() if _is_integral(x) else NotImplemented


def _abs(x: torch.Tensor) -> Any:
    """Keep half precision: torch.onnx returns float32 for it."""
    half = x.dtype in (torch.float16, torch.bfloat16)
    return x.float().abs().to(x.dtype) if half else NotImplemented


def _sign(x: torch.Tensor) -> Any:
    """Return 0 for NaN as PyTorch does: ONNX's Sign returns NaN."""
    if not x.dtype.is_floating_point:
        return NotImplemented
    return (x > 0).to(x.dtype) - (x < 0).to(x.dtype)


def _power(x: torch.Tensor, y: torch.Tensor) -> Any:
    """Promote the base to the result dtype, which torch.onnx does not."""
    dtype = torch.result_type(x, y)
    return NotImplemented if x.dtype == y.dtype else torch.pow(x.to(dtype), y.to(dtype))


def _isclose(
    x: torch.Tensor,
    y: torch.Tensor,
    rtol: float = 1e-05,
    atol: float = 1e-08,
    equal_nan: bool = False,
) -> Any:
    """Subtract integers as floats: torch.onnx subtracts them in their dtype, which overflows."""
    if not _is_integral(x):
        return NotImplemented
    wide = y.to(torch.get_default_dtype())
    if rtol == 0 and atol == 0:
        return x == y
    return (x == y) | (torch.abs(x - wide) <= torch.abs(wide * rtol) + atol)


def _ldexp(x: torch.Tensor, exponent: torch.Tensor) -> torch.Tensor:
    """Multiply by a power as PyTorch does: torch infers another dtype beside a 0-d exponent."""
    return torch.mul(x, torch.pow(2.0, exponent))


def _power_of_number(x: torch.Tensor, y: Number) -> Any:
    """Use roots for exponents 0.5 and -0.5 as PyTorch does, and products for integers.

    At -infinity a root is NaN and a power is not; of float16 PyTorch computes the power.
    torch.onnx rounds exponents of float64 to float32. ONNX Runtime computes integer powers in
    float64, which is not exact beyond 2^53.
    """
    if isinstance(y, int) and y >= 0 and (dtype := torch.result_type(x, y)) in _INTEGERS:
        return _integer_power(x.to(dtype), int(y))
    if x.dtype == torch.float64 and abs(y) != 0.5 and not _is_single(y):
        return torch.pow(x, torch.full((), y, dtype=x.dtype, device=x.device))
    if not x.dtype.is_floating_point or y not in (0.5, -0.5):
        return NotImplemented
    if x.dtype == torch.float16:
        x = torch.where((x == 0) | (x == -math.inf), x.abs(), x)
    return torch.sqrt(x) if y > 0 else torch.rsqrt(x)


def _number_to_power(x: Number, y: torch.Tensor) -> Any:
    """Raise a float64 number: torch.onnx writes it as float32."""
    if y.dtype != torch.float64 or _is_single(x):
        return NotImplemented
    return torch.pow(torch.full((), x, dtype=y.dtype, device=y.device), y)


def _is_single(number: Number) -> bool:
    """Return whether float32 has the number."""
    try:
        return (
            not math.isfinite(number) or struct.unpack("f", struct.pack("f", number))[0] == number
        )
    except OverflowError:
        return False


def _integer_power(x: torch.Tensor, y: int) -> torch.Tensor:
    """Raise to a power by products, which wrap around on overflow as PyTorch's powers do."""
    power = x if y & 1 else torch.ones_like(x)
    while y := y >> 1:
        x = x * x
        power = power * x if y & 1 else power
    return power


def _clamp(x: torch.Tensor, low: Number | None = None, high: Number | None = None) -> Any:
    """Give both bounds the kind of the result: torch.onnx refuses an integer and a float."""
    given = [bound for bound in (low, high) if bound is not None]
    dtype = next((torch.result_type(x, y) for y in given if isinstance(y, float)), x.dtype)
    if x.dtype == dtype and len({type(bound) for bound in given}) <= 1:
        return NotImplemented
    kind = float if dtype.is_floating_point else int
    low, high = (bound if bound is None else kind(bound) for bound in (low, high))
    return aten.clamp.default(x.to(dtype), low, high)


def _compared(compare: Callable[..., torch.Tensor]) -> Callable[..., Any]:
    """Round the number to the dtype of half precision: torch.onnx compares it in float32."""

    def decomposed(x: torch.Tensor, y: Number) -> Any:
        if x.dtype not in (torch.float16, torch.bfloat16) or not isinstance(y, float):
            return NotImplemented
        return compare(x, torch.full((), y, dtype=x.dtype, device=x.device))

    return decomposed


def _addcdiv(x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, *, value: Number = 1) -> Any:
    """Multiply first: torch.onnx multiplies the quotient, which overflows elsewhere."""
    return NotImplemented if value == 1 else x + value * a / b


def _lerp(x: torch.Tensor, end: torch.Tensor, weight: torch.Tensor | Number) -> torch.Tensor:
    """Start from the end for weights below -0.5, too, and compute half precision in float32."""
    dtype = x.dtype
    if dtype in (torch.float16, torch.bfloat16):
        x, end = x.float(), end.float()
        weight = weight.float() if isinstance(weight, torch.Tensor) else weight
    from_start = x + weight * (end - x)
    from_end = end - (end - x) * (1 - weight)
    if isinstance(weight, torch.Tensor):
        return torch.where(weight.abs() < 0.5, from_start, from_end).to(dtype)
    return (from_start if abs(weight) < 0.5 else from_end).to(dtype)


def _round_to(x: torch.Tensor, *, decimals: int) -> Any:
    """Compute half precision in float32, and shift to the left of the point by a division."""
    if x.dtype in (torch.float16, torch.bfloat16):
        return torch.round(x.float(), decimals=decimals).to(x.dtype)
    power = 10.0 ** abs(decimals)
    return torch.round(x / power) * power if decimals < 0 else torch.round(x * power) / power


def _infinite(x: torch.Tensor) -> torch.Tensor:
    """Compare float64, which torch.onnx casts to float32; integers are finite."""
    if _is_integral(x):
        return torch.zeros_like(x, dtype=torch.bool)
    return (x == math.inf) | (x == -math.inf)


def _equals(infinity: float) -> Callable[..., torch.Tensor]:
    def decomposed(x: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(x, dtype=torch.bool) if _is_integral(x) else x == infinity

    return decomposed


def _isnan(x: torch.Tensor) -> Any:
    """Return False for integers: ONNX's IsNaN takes floats only."""
    return torch.zeros_like(x, dtype=torch.bool) if _is_integral(x) else NotImplemented


def _isfinite(x: torch.Tensor) -> Any:
    """All integers are: ONNX's operators take floats alone."""
    return torch.ones_like(x, dtype=torch.bool) if _is_integral(x) else NotImplemented


def _log1p(x: torch.Tensor) -> Any:
    """Compute Kahan's log1p: torch.onnx writes log(1 + x), which loses small x."""
    if _is_integral(x):
        return NotImplemented
    more = x + 1
    rest = more - 1
    regular = (rest != 0) & (rest != math.inf)
    part = torch.where(regular, x / rest, torch.ones_like(x))
    return torch.where(rest == 0, x, torch.log(more) * part)


def _expm1(x: torch.Tensor) -> Any:
    """Compute Kahan's expm1: torch.onnx writes exp(x) - 1, which loses small x."""
    if _is_integral(x):
        return NotImplemented
    power = torch.exp(x)
    rest = power - 1
    regular = (rest != -1) & (power != math.inf)  # the logarithm of a denormal number is not exact
    part = torch.where(regular & (rest != 0), x / torch.log(power), torch.ones_like(x))
    return torch.where(rest == 0, x, rest * part)


def _logarithm(base: float) -> Callable[..., Any]:
    """Divide float64 by an exact log(base): torch.onnx writes that constant as float32."""

    def decomposed(x: torch.Tensor) -> Any:
        return torch.log(x) / math.log(base) if x.dtype == torch.float64 else NotImplemented

    return decomposed


def _add(x: torch.Tensor, y: torch.Tensor | Number, *, alpha: Number = 1) -> Any:
    """Compute a sum of bools as `or`, which it is in PyTorch: ONNX's Add takes no bools."""
    if torch.result_type(x, y) == torch.bool and alpha in (True, 1):
        return x | y
    return NotImplemented


def _add_scaled(x: torch.Tensor, y: Number, alpha: Number = 1) -> Any:
    """Multiply the number by alpha: torch.onnx fails on alpha of the Scalar overload."""
    return NotImplemented if alpha == 1 else torch.add(x, y * alpha)


def _sub_scaled(x: torch.Tensor, y: Number, alpha: Number = 1) -> Any:
    """Multiply the number by alpha, for the same reason as `_add_scaled`."""
    return NotImplemented if alpha == 1 else torch.sub(x, y * alpha)


def _where(condition: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> Any:
    """Select bools by logical operators: ONNX Runtime has no Where kernel for bool."""
    if x.dtype == y.dtype == torch.bool:
        return (condition & x) | (~condition & y)
    return NotImplemented


def _atan2(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Compute atan2 with signed zeros and infinities: torch.onnx gives -pi for pi and 0 for NaN."""
    dtype = torch.result_type(y, x)
    if not dtype.is_floating_point:
        dtype = torch.get_default_dtype()
    y, x = y.to(dtype), x.to(dtype)
    high, wide = y.abs(), x.abs()
    ratio = high / wide
    ratio = torch.where((high == 0) & (wide == 0), torch.zeros_like(ratio), ratio)
    ratio = torch.where((high == math.inf) & (wide == math.inf), torch.ones_like(ratio), ratio)
    angle = torch.atan(ratio)
    angle = torch.where(is_negative(x), math.pi - angle, angle)
    return with_sign(angle, is_negative(y))


def _addmm(
    x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, *, beta: Number = 1, alpha: Number = 1
) -> Any:
    """Write integer addmm as MatMul and Add: ONNX Runtime's Gemm takes floats only."""
    if _leaves_out(x, alpha):
        return _scaled(x, beta, (a.shape[0], b.shape[1]))
    if not _is_integral(x) or not (isinstance(beta, int) and isinstance(alpha, int)):
        return NotImplemented
    product = torch.mm(a, b)
    product = product if alpha == 1 else product * alpha
    return product if beta == 0 else (x if beta == 1 else x * beta) + product


def _added_to(
    multiply: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    shape_of: Callable[[torch.Tensor, torch.Tensor], Sequence[Any]] | None = None,
) -> Callable[..., Any]:
    """Leave out what is multiplied by 0: torch.onnx multiplies it, NaN for NaN.

    Args:
        multiply: Multiplies the factors.
        shape_of: Returns the shape of the product, where `alpha=0` leaves it out.
    """

    def added(
        x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, *, beta: Number = 1, alpha: Number = 1
    ) -> Any:
        if shape_of is not None and _leaves_out(x, alpha):
            return _scaled(x, beta, shape_of(a, b))
        if beta != 0:
            return NotImplemented
        made = multiply(a, b)
        return made if alpha == 1 else made * alpha

    return added


def _leaves_out(x: torch.Tensor, alpha: Number) -> bool:
    """Return whether PyTorch does not read the factors: so do the kernels of these dtypes."""
    return alpha == 0 and x.dtype in (torch.float32, torch.float64)


def _scaled(x: torch.Tensor, beta: Number, shape: Sequence[Any]) -> torch.Tensor:
    if beta == 0:
        return torch.zeros(shape, dtype=x.dtype, device=x.device)
    return (x.clone() if beta == 1 else x * beta).expand(shape).clone()


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    aten.abs.default: _abs,
    aten.sign.default: _sign,
    aten.isclose.default: _isclose,
    aten.ldexp.Tensor: _ldexp,
    aten.pow.Tensor_Tensor: _power,
    aten.pow.Scalar: _number_to_power,
    aten.pow.Tensor_Scalar: _power_of_number,
    aten.ceil.default: _unchanged_if_integral,
    aten.floor.default: _unchanged_if_integral,
    aten.round.default: _unchanged_if_integral,
    aten.trunc.default: _unchanged_if_integral,
    aten.clamp.default: _clamp,
    aten.eq.Scalar: _compared(torch.eq),
    aten.ne.Scalar: _compared(torch.ne),
    aten.lt.Scalar: _compared(torch.lt),
    aten.le.Scalar: _compared(torch.le),
    aten.gt.Scalar: _compared(torch.gt),
    aten.ge.Scalar: _compared(torch.ge),
    aten.round.decimals: _round_to,
    aten.isinf.default: _infinite,
    aten.isposinf.default: _equals(math.inf),
    aten.isneginf.default: _equals(-math.inf),
    aten.isnan.default: _isnan,
    aten.isfinite.default: _isfinite,
    aten.log1p.default: _log1p,
    aten.expm1.default: _expm1,
    aten.log2.default: _logarithm(2),
    aten.log10.default: _logarithm(10),
    aten.add.Tensor: _add,
    aten.add.Scalar: _add_scaled,
    aten.sub.Scalar: _sub_scaled,
    aten.where.self: _where,
    aten.atan2.default: _atan2,
    aten.addcdiv.default: _addcdiv,
    aten.addmm.default: _addmm,
    aten.addmv.default: _added_to(torch.mv, lambda a, _: (a.shape[0],)),
    aten.addbmm.default: _added_to(
        lambda a, b: torch.bmm(a, b).sum(0, dtype=a.dtype),
        lambda a, b: (a.shape[1], b.shape[2]),
    ),
    aten.lerp.Tensor: _lerp,
    aten.lerp.Scalar: _lerp,
    aten.baddbmm.default: _added_to(torch.bmm),
}
