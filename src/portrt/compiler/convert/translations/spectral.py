"""Translations of 1-D Fourier transforms, in the form of `portrt.graphs.spectral`.

A complex tensor is a real one here, with (real, imaginary) as its last dimension. Short transforms
are products with a matrix. Long ones, and those of dynamic length, are ONNX's DFT, in float64
unless the length is a power of two: at other lengths ONNX Runtime loses up to half of the digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from onnxscript import ir
from onnxscript import opset18 as op
from onnxscript.onnx_types import TensorType

from portrt.graphs import spectral

# Exponents of the length for PyTorch's normalizations: none, "ortho", by the length.
_POWERS = (0.0, -0.5, -1.0)


def fft_r2c(self: TensorType, dim: Sequence[int], normalization: int, onesided: bool) -> TensorType:
    """Translate `aten::_fft_r2c`: [..., n, ...] to [..., bins, ..., 2]."""
    (axis,), rank = dim, len(self.shape)
    length = _static(self.shape[axis])
    if length is not None and spectral.has_small_matrix(
        spectral.TO_COMPLEX, length, onesided=onesided
    ):
        order = [position for position in range(rank) if position != axis] + [axis]
        matrix = _to_complex_matrix(length, onesided=onesided)
        found = op.MatMul(_transposed(self, order), _constant(matrix, length, normalization, self))
        found = op.Reshape(found, [*[0] * (rank - 1), matrix.shape[1] // 2, 2])
        return _transposed(found, [*np.argsort(order), rank])
    found = _dft(op.Unsqueeze(self, [-1]), axis, length, onesided=onesided)
    return _normalized(found, self, axis, normalization)


def fft_c2c(self: TensorType, dim: Sequence[int], normalization: int, forward: bool) -> TensorType:
    """Translate `aten::_fft_c2c`: [..., n, ..., 2] to the same shape."""
    (axis,), rank = dim, len(self.shape)
    length = _static(self.shape[axis])
    if length is not None and spectral.has_small_matrix(spectral.COMPLEX, length):
        matrix = _complex_matrix(length, forward=forward)
        flat, order = _bins_last(self, axis, length)
        found = op.MatMul(flat, _constant(matrix, length, normalization, self))
        found = op.Reshape(found, [*[0] * (rank - 2), length, 2])
        return _transposed(found, np.argsort(order))
    found = _dft(self, axis, length, inverse=not forward)
    if not forward:  # ONNX divides by the length
        found = op.Mul(found, _length(self, axis))
    return _normalized(found, self, axis, normalization)


def fft_c2r(
    self: TensorType, dim: Sequence[int], normalization: int, last_dim_size: Any
) -> TensorType:
    """Translate `aten::_fft_c2r`: [..., bins, ..., 2] to [..., last_dim_size, ...]."""
    (axis,), rank = dim, len(self.shape)
    length = last_dim_size if isinstance(last_dim_size, int) else None
    if length is not None and spectral.has_small_matrix(spectral.TO_REAL, length):
        matrix = _to_real_matrix(length)
        flat, order = _bins_last(self, axis, matrix.shape[0] // 2)
        found = op.MatMul(flat, _constant(matrix, length, normalization, self))
        return _transposed(found, np.argsort(order[:-1]))
    size = op.Reshape(op.Cast(last_dim_size, to=ir.DataType.INT64), [1])
    mirrored = op.Slice(self, op.Div(op.Sub(size, [1]), [2]), [0], [axis], [-1])
    mirrored = op.Mul(mirrored, op.CastLike([1.0, -1.0], self))
    spectrum = op.Concat(self, mirrored, axis=axis)
    found = op.Mul(_dft(spectrum, axis, length, inverse=True), _length(spectrum, axis))
    found = _normalized(found, spectrum, axis, normalization)
    return op.Squeeze(op.Slice(found, [0], [1], [rank - 1]), [rank - 1])


TRANSLATIONS: tuple[tuple[Any, Callable[..., Any]], ...] = (
    (spectral.TO_COMPLEX, fft_r2c),
    (spectral.COMPLEX, fft_c2c),
    (spectral.TO_REAL, fft_c2r),
)


def _static(size: Any) -> int | None:
    return size if isinstance(size, int) else None


def _transposed(value: TensorType, order: Iterable[Any]) -> TensorType:
    order = [int(position) for position in order]
    return value if order == sorted(order) else op.Transpose(value, perm=order)


def _bins_last(value: TensorType, axis: int, bins: int) -> tuple[TensorType, list[int]]:
    """Move the transformed axis last and flatten it with the parts.

    Returns:
        [..., 2 * bins], and the permutation that was applied before flattening.
    """
    rank = len(value.shape)
    order = [position for position in range(rank - 1) if position != axis] + [axis, rank - 1]
    flat = op.Reshape(_transposed(value, order), [*[0] * (rank - 2), 2 * bins])
    return flat, order


def _angles(rows: int, columns: int, length: int) -> np.ndarray[Any, Any]:
    """Return 2 pi r c / length, [rows, columns]; r c is reduced modulo length as an integer."""
    product = np.outer(np.arange(rows), np.arange(columns)) % length
    return product * (2 * math.pi / length)


def _to_complex_matrix(length: int, *, onesided: bool) -> np.ndarray[Any, Any]:
    """Return the matrix [length, 2 * bins]; the parts of a bin are adjacent."""
    angles = _angles(length, length // 2 + 1 if onesided else length, length)
    return np.stack([np.cos(angles), -np.sin(angles)], -1).reshape(length, -1)


def _complex_matrix(length: int, *, forward: bool) -> np.ndarray[Any, Any]:
    """Return the matrix [2 * length, 2 * length]; the parts of a bin are adjacent."""
    angles = _angles(length, length, length)
    cos, sin = np.cos(angles), np.sin(angles) * (-1 if forward else 1)
    by_part = np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)], 1)
    return by_part.reshape(2 * length, 2 * length)


def _to_real_matrix(length: int) -> np.ndarray[Any, Any]:
    """Return the matrix [2 * bins, length]; inner bins count twice, for their mirror images."""
    bins = length // 2 + 1
    angles = _angles(bins, length, length)
    weight = np.full((bins, 1), 2.0)
    weight[0] = 1
    if length % 2 == 0:
        weight[-1] = 1
    by_part = np.stack([weight * np.cos(angles), -weight * np.sin(angles)], 1)
    return by_part.reshape(2 * bins, length)


def _constant(
    matrix: np.ndarray[Any, Any], length: int, normalization: int, like: TensorType
) -> TensorType:
    dtype = np.float64 if like.dtype == ir.DataType.DOUBLE else np.float32
    scaled = matrix * float(length) ** _POWERS[normalization]
    return op.Constant(value=ir.tensor(np.ascontiguousarray(scaled, dtype)))


def _dft(
    value: TensorType,
    axis: int,
    length: int | None,
    *,
    onesided: bool = False,
    inverse: bool = False,
) -> TensorType:
    """Apply ONNX's DFT along an axis; DFT cannot transform its first axis, so one is added."""
    is_exact = length is not None and length & (length - 1) == 0
    wide = value if is_exact else op.Cast(value, to=ir.DataType.DOUBLE)
    found = op.DFT(op.Unsqueeze(wide, [0]), axis=axis + 1, onesided=onesided, inverse=inverse)
    found = op.Squeeze(found, [0])
    return found if is_exact else op.CastLike(found, value)


def _length(value: TensorType, axis: int) -> TensorType:
    return op.CastLike(op.Shape(value, start=axis, end=axis + 1), value)


def _normalized(found: TensorType, value: TensorType, axis: int, normalization: int) -> TensorType:
    if normalization == 0:
        return found
    length = _length(value, axis)
    return op.Div(found, op.Sqrt(length) if normalization == 1 else length)
