"""Complex arithmetic on pairs of real tensors.

Magnitudes and quotients are computed on values that are scaled to at most one, as PyTorch does, so
that squares neither overflow nor underflow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from portrt.compiler.lower.complex_numbers.values import Pair, Value, Writer, pair_of, parts_of

aten = torch.ops.aten


def _add(_: Writer, a: Any, b: Any, *, alpha: Any = 1) -> Pair:
    return _sum(a, _scaled(b, alpha))


def _sub(_: Writer, a: Any, b: Any, *, alpha: Any = 1) -> Pair:
    return _sum(a, _scaled(b, -alpha))


def _rsub(_: Writer, a: Any, b: Any, alpha: Any = 1) -> Pair:
    return _sum(b, _scaled(a, -alpha))


def _sum(a: Any, b: Any) -> Pair:
    left, right = (a, b) if isinstance(a, (Pair, Value)) else (b, a)
    left, right = pair_of(left), pair_of(right)
    is_real = not isinstance(right.im, Value) and right.im == 0
    return Pair(left.re + right.re, left.im if is_real else left.im + right.im)


def _scaled(value: Any, factor: Any) -> Any:
    if factor == 1:
        return value
    if isinstance(value, Pair):
        return _product(value, factor)
    return value * factor


def _mul(_: Writer, a: Any, b: Any) -> Pair:
    return _product(a, b)


def _product(a: Any, b: Any) -> Pair:
    if not isinstance(a, Pair):
        a, b = b, a
    if not isinstance(a, Pair):  # a real tensor and a complex number
        tensor, number = (a, b) if isinstance(a, Value) else (b, a)
        return Pair(tensor * number.real, tensor * number.imag)
    if not isinstance(b, (Pair, complex)):
        return Pair(a.re * b, a.im * b)
    c, d = pair_of(b)
    return Pair(a.re * c - a.im * d, a.re * d + a.im * c)


def _div(writer: Writer, a: Any, b: Any) -> Any:
    if isinstance(b, complex):
        return _product(a, 1 / b) if b else NotImplemented
    if not isinstance(b, Pair):
        return Pair(a.re / b, a.im / b)
    size = writer.call(aten.maximum.default, _abs_real(b.re), _abs_real(b.im))
    c, d = b.re / size, b.im / size
    below = c * c + d * d
    if isinstance(a, Pair):
        re, im = a.re * c + a.im * d, a.im * c - a.re * d
    elif isinstance(a, complex):
        re, im = c * a.real + d * a.imag, c * a.imag - d * a.real
    else:
        re, im = c * a, -(d * a)
    return Pair(re / below / size, im / below / size)


def _reciprocal(writer: Writer, x: Pair) -> Any:
    return _div(writer, 1.0, x)


def _pow(_: Writer, x: Pair, exponent: Any) -> Any:
    return _product(x, x) if exponent == 2 else NotImplemented


def _abs_real(x: Value) -> Any:
    return x.call(aten.abs.default)


def _abs(writer: Writer, x: Pair) -> Any:
    a, b = _abs_real(x.re), _abs_real(x.im)
    large, small = writer.call(aten.maximum.default, a, b), writer.call(aten.minimum.default, a, b)
    is_exact = writer.call(  # 0 cannot be divided by; for inf the result is inf
        aten.logical_or.default, large.call(aten.eq.Scalar, 0), large.call(aten.isinf.default)
    )
    ratio = small / large.call(aten.masked_fill.Scalar, is_exact, 1)
    found = large * (ratio * ratio + 1).call(aten.sqrt.default)
    return writer.call(aten.where.self, is_exact, large, found)


def _angle(writer: Writer, x: Pair) -> Any:
    return writer.call(aten.atan2.default, x.im, x.re)


def _sgn(writer: Writer, x: Pair) -> Pair:
    size = _abs(writer, x)
    size = size.call(aten.masked_fill.Scalar, size.call(aten.eq.Scalar, 0), 1)
    return Pair(x.re / size, x.im / size)


def _exp(writer: Writer, x: Pair) -> Pair:
    return _polar(writer, x.re.call(aten.exp.default), x.im)


def _log(writer: Writer, x: Pair) -> Pair:
    return Pair(_abs(writer, x).call(aten.log.default), _angle(writer, x))


def _polar(_: Writer, size: Any, angle: Any) -> Pair:
    return Pair(size * angle.call(aten.cos.default), size * angle.call(aten.sin.default))


def _conj(_: Writer, x: Any) -> Any:
    return Pair(x.re, -x.im) if isinstance(x, Pair) else x


def _complex(writer: Writer, re: Any, im: Any) -> Pair:
    return Pair(*writer.call(aten.broadcast_tensors.default, [re, im]))


def _view_as_real(writer: Writer, x: Pair) -> Any:
    return writer.call(aten.stack.default, list(x), -1)


def _eq(writer: Writer, a: Any, b: Any) -> Any:
    return _compared(writer, a, b, "eq", aten.logical_and.default)


def _ne(writer: Writer, a: Any, b: Any) -> Any:
    return _compared(writer, a, b, "ne", aten.logical_or.default)


def _compared(writer: Writer, a: Any, b: Any, name: str, both: Any) -> Any:
    if not isinstance(a, (Pair, Value)):
        a, b = b, a
    parts = []
    for left, right in zip(pair_of(a), pair_of(b), strict=True):
        overload = "Tensor" if isinstance(right, Value) else "Scalar"
        parts.append(left.call(getattr(getattr(aten, name), overload), right))
    return writer.call(both, *parts)


def _vector_norm(writer: Writer, x: Pair, *args: Any, **kwargs: Any) -> Any:
    return _abs(writer, x).call(aten.linalg_vector_norm.default, *args, **kwargs)


def _bilinear(target: Any) -> Callable[..., Any]:
    """Return a rule that expands a bilinear operator into real products and their sums."""

    def rule(writer: Writer, a: Any, b: Any) -> Pair:
        return _expanded(lambda *both: writer.call(target, *both), a, b)

    return rule


def _expanded(product: Callable[..., Any], a: Any, b: Any) -> Pair:
    if not isinstance(a, Pair):
        return Pair(product(a, b.re), product(a, b.im))
    if not isinstance(b, Pair):
        return Pair(product(a.re, b), product(a.im, b))
    return Pair(
        product(a.re, b.re) - product(a.im, b.im), product(a.re, b.im) + product(a.im, b.re)
    )


def _einsum(writer: Writer, equation: str, operands: list[Any], **kwargs: Any) -> Any:
    def call(*given: Any) -> Any:
        return writer.call(aten.einsum.default, equation, list(given), **kwargs)

    if len(operands) == 1:
        return Pair(call(operands[0].re), call(operands[0].im))
    if len(operands) != 2:
        return NotImplemented
    return _expanded(call, *operands)


def _addmm(writer: Writer, x: Any, a: Any, b: Any, *, beta: Any = 1, alpha: Any = 1) -> Pair:
    found = _expanded(lambda *both: writer.call(aten.mm.default, *both), a, b)
    return _sum(_scaled(x, beta), _scaled(found, alpha))


def _linear(writer: Writer, x: Any, weight: Any, bias: Any = None) -> Pair:
    found = _expanded(lambda *both: writer.call(aten.linear.default, *both), x, weight)
    return found if bias is None else _sum(found, bias)


RULES: dict[Any, Callable[..., Any]] = {
    **{
        target: _bilinear(target)
        for target in (
            *(aten.mm.default, aten.bmm.default, aten.matmul.default, aten.mv.default),
            *(aten.dot.default, aten.outer.default),
        )
    },
    **dict.fromkeys((aten.add.Tensor, aten.add.Scalar), _add),
    **dict.fromkeys((aten.sub.Tensor, aten.sub.Scalar), _sub),
    **dict.fromkeys((aten.rsub.Tensor, aten.rsub.Scalar), _rsub),
    **dict.fromkeys((aten.mul.Tensor, aten.mul.Scalar), _mul),
    **dict.fromkeys((aten.div.Tensor, aten.div.Scalar), _div),
    **dict.fromkeys(
        (aten._conj.default, aten._conj_physical.default, aten.conj_physical.default), _conj
    ),
    **dict.fromkeys((aten.view_as_real.default, aten.view_as_real_copy.default), _view_as_real),
    **dict.fromkeys((aten.view_as_complex.default, aten.view_as_complex_copy.default), parts_of),
    **dict.fromkeys((aten.eq.Tensor, aten.eq.Scalar), _eq),
    **dict.fromkeys((aten.ne.Tensor, aten.ne.Scalar), _ne),
    aten.abs.default: _abs,
    aten.addmm.default: _addmm,
    aten.angle.default: _angle,
    aten.complex.default: _complex,
    aten.einsum.default: _einsum,
    aten.exp.default: _exp,
    aten.imag.default: lambda _, x: x.im,
    aten.linalg_vector_norm.default: _vector_norm,
    aten.linear.default: _linear,
    aten.log.default: _log,
    aten.polar.default: _polar,
    aten.pow.Tensor_Scalar: _pow,
    aten.real.default: lambda _, x: x.re,
    aten.reciprocal.default: _reciprocal,
    aten.sgn.default: _sgn,
}
