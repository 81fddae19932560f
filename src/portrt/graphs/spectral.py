"""Fourier transforms in a lowered graph, the only nodes of a block that have complex tensors.

Each transforms one dimension. Its input is real, or comes from a `view_as_complex` without other
users; its output is real, or only `view_as_real` uses it. So engines take and return real tensors.
"""

from __future__ import annotations

from typing import Any

import torch

aten = torch.ops.aten

TO_COMPLEX = aten._fft_r2c.default
TO_REAL = aten._fft_c2r.default
COMPLEX = aten._fft_c2c.default
TRANSFORMS = (TO_COMPLEX, TO_REAL, COMPLEX)

# A transform of static length is a product with a matrix of at most this many elements: 8 MiB of
# float32, like a linear layer with 1448 features. That covers real transforms up to length 1447 and
# complex ones up to 724. There the product is faster than ONNX Runtime's DFT, which also loses
# digits at lengths that are not a power of two.
_MAX_ELEMENTS = 1 << 21


def is_inside(node: torch.fx.Node) -> bool:
    """Return whether the complex tensors of a node can be inside an engine."""
    if node.target in TRANSFORMS:
        return True
    if node.target is aten.view_as_complex.default:
        return all(user.target in TRANSFORMS for user in node.users)
    if node.target is aten.view_as_real.default:
        return any(source.target in TRANSFORMS for source in node.all_input_nodes)
    return False


def length_of(node: torch.fx.Node) -> int | None:
    """Return the length of a transform, or None if it is dynamic."""
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
    """Return whether a transform is translated to a product with a matrix."""
    onesided = node.target is not TO_COMPLEX or bool(node.args[3])
    length = length_of(node)
    return length is not None and has_small_matrix(node.target, length, onesided=onesided)


def has_small_matrix(target: object, length: int, *, onesided: bool = True) -> bool:
    """Return whether the matrix of a transform is small; complex values are two elements each."""
    bins = length // 2 + 1 if onesided else length
    if target is COMPLEX:
        return 4 * length * length <= _MAX_ELEMENTS
    return 2 * bins * length <= _MAX_ELEMENTS
