"""Fourier transforms in a lowered graph: the one place where a block holds complex tensors.

Each is of one dimension, takes what `view_as_complex` made for it alone or a real tensor, and gives
its result to `view_as_real` alone, or is real. So an engine takes and gives real tensors.
"""

from __future__ import annotations

from typing import Any

import torch

aten = torch.ops.aten

TO_COMPLEX = aten._fft_r2c.default
TO_REAL = aten._fft_c2r.default
COMPLEX = aten._fft_c2c.default
TRANSFORMS = (TO_COMPLEX, TO_REAL, COMPLEX)

# A transform of a fixed length is a product with a matrix, where that has at most so many numbers:
# 8 MiB of float32, the size of a linear layer of 1448 features. Real transforms reach a length of
# 1447 so, complex ones 724. Up to there the product is faster than ONNX Runtime's own transform,
# which at lengths that are no power of two also loses digits.
_MAX_NUMBERS = 1 << 21


def is_inside(node: torch.fx.Node) -> bool:
    """Whether the complex tensors of a node can lie within an engine."""
    if node.target in TRANSFORMS:
        return True
    if node.target is aten.view_as_complex.default:
        return all(user.target in TRANSFORMS for user in node.users)
    if node.target is aten.view_as_real.default:
        return any(source.target in TRANSFORMS for source in node.all_input_nodes)
    return False


def length_of(node: torch.fx.Node) -> int | None:
    """The length of a transform, or None where it varies."""
    if node.target is TO_REAL:
        found: Any = node.args[3]
        found = found.meta.get("val") if isinstance(found, torch.fx.Node) else found
    else:
        (dim,) = _dims(node)
        found = node.all_input_nodes[0].meta["val"].shape[dim]
    return found if type(found) is int else None


def _dims(node: torch.fx.Node) -> Any:
    return node.args[1]


def is_matrix_product(node: torch.fx.Node) -> bool:
    """Whether a transform is translated to a product with a matrix."""
    onesided = node.target is not TO_COMPLEX or bool(node.args[3])
    length = length_of(node)
    return length is not None and has_small_matrix(node.target, length, onesided=onesided)


def has_small_matrix(target: object, length: int, *, onesided: bool = True) -> bool:
    """Whether the matrix of a transform is small; a complex number is two of its numbers."""
    bins = length // 2 + 1 if onesided else length
    if target is COMPLEX:
        return 4 * length * length <= _MAX_NUMBERS
    return 2 * bins * length <= _MAX_NUMBERS
