"""Rewrite Fourier transforms over several dimensions as 1-D transforms, see `graphs.spectral`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from portrt.compiler.lower.complex_numbers.values import REAL_DTYPES, Pair, Value, Writer, parts_of
from portrt.graphs import spectral

aten = torch.ops.aten


def _to_complex(
    writer: Writer, x: Value, dims: Sequence[int], normalization: int, onesided: bool
) -> Any:
    """Transform real to complex over `dims`; with `onesided`, half of the bins of the last one."""
    if x.fake.dtype not in REAL_DTYPES.values():
        return NotImplemented
    *others, last = [dim % x.fake.dim() for dim in dims]
    found = writer.call(spectral.TO_COMPLEX, x, [last], normalization, onesided)
    return _complex(writer, _parts(writer, found), others, normalization, True)


def _complex(
    writer: Writer, x: Pair, dims: Sequence[int], normalization: int, forward: bool
) -> Pair:
    for dim in reversed(dims):
        value, axis = _complex_value(writer, x), dim % x.re.fake.dim()
        found = writer.call(spectral.COMPLEX, value, [axis], normalization, forward)
        x = _parts(writer, found)
    return x


def _to_real(writer: Writer, x: Pair, dims: Sequence[int], normalization: int, length: Any) -> Any:
    """Transform complex to real over `dims`, of which the last gets `length` elements."""
    *others, last = [dim % x.re.fake.dim() for dim in dims]
    x = _complex(writer, x, others, normalization, False)
    return writer.call(spectral.TO_REAL, _complex_value(writer, x), [last], normalization, length)


def _complex_value(writer: Writer, x: Pair) -> Value:
    stacked = writer.call(aten.stack.default, list(x), -1)
    found: Value = writer.call(aten.view_as_complex.default, stacked)
    return found


def _parts(writer: Writer, x: Value) -> Pair:
    return parts_of(writer, writer.call(aten.view_as_real.default, x))


RULES: dict[Any, Callable[..., Any]] = {
    spectral.TO_COMPLEX: _to_complex,
    spectral.COMPLEX: _complex,
    spectral.TO_REAL: _to_real,
}
