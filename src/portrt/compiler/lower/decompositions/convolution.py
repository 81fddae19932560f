"""3-D convolutions, and the gradient of a convolution as convolutions."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch

aten = torch.ops.aten
Tensor = torch.Tensor

# Limit of groups: the gradient of the weight is one convolution per group.
_MAX_GROUPS = 16
# Limit of elements in a kernel of a weight: each becomes one matrix product.
_MAX_ELEMENTS = 64


def _conv3d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] = (1,),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    groups: int = 1,
) -> Tensor:
    """Call `convolution`: torch.onnx gives a conv3d without bias a bias of a wrong size."""
    steps, pads, gaps = (list(v) * (3 // len(v)) for v in (stride, padding, dilation))
    image = x if x.dim() == 5 else x.unsqueeze(0)
    found: Tensor = aten.convolution(
        image, weight, bias, steps, pads, gaps, False, [0, 0, 0], groups
    )
    return found if x.dim() == 5 else found.squeeze(0)


def _backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias_sizes: Sequence[int] | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    output_mask: Sequence[bool],
) -> Any:
    """Compute the gradients as convolutions: torch.onnx has no translation for the operator."""
    spatial = range(2, x.dim())
    if groups > _MAX_GROUPS or not all(
        isinstance(t.shape[i], int) for t in (x, grad) for i in spatial
    ):
        return NotImplemented
    steps, pads, gaps = (list(v) * (len(spatial) // len(v)) for v in (stride, padding, dilation))
    to_x = to_weight = to_bias = None
    if output_mask[0]:
        zeros = [0] * len(spatial)
        more = zeros if transposed else _missing(grad, x, weight, steps, pads, gaps)
        to_x = aten.convolution(grad, weight, None, steps, pads, gaps, not transposed, more, groups)
    if output_mask[1]:
        image, kernel = (grad, x) if transposed else (x, grad)
        parts = [
            _to_weight(one, other, weight, steps, pads, gaps)
            for one, other in zip(image.chunk(groups, 1), kernel.chunk(groups, 1), strict=True)
        ]
        to_weight = parts[0] if groups == 1 else torch.cat(parts, 0)
    if output_mask[2]:
        to_bias = grad.sum([0, *spatial])
    return to_x, to_weight, to_bias


def _missing(
    grad: Tensor, x: Tensor, weight: Tensor, steps: list[int], pads: list[int], gaps: list[int]
) -> list[int]:
    """Return the output padding of each dimension: trailing rows that the stride skipped."""
    return [
        x.shape[axis + 2]
        - ((grad.shape[axis + 2] - 1) * step - 2 * pad + gap * (weight.shape[axis + 2] - 1) + 1)
        for axis, (step, pad, gap) in enumerate(zip(steps, pads, gaps, strict=True))
    ]


def _to_weight(
    image: Tensor,
    kernel: Tensor,
    weight: Tensor,
    steps: list[int],
    pads: list[int],
    gaps: list[int],
) -> Tensor:
    """Compute the weight's gradient by a convolution with batch and channels swapped.

    TensorRT has no convolution whose number of channels is dynamic, as the batch may be; then it is
    computed by matrix products.
    """
    if type(image.shape[0]) is not int and weight[0, 0].numel() <= _MAX_ELEMENTS:
        return _by_products(image, kernel, weight, steps, pads, gaps)
    found: Tensor = aten.convolution(
        image.transpose(0, 1),
        kernel.transpose(0, 1),
        None,
        gaps,
        pads,
        steps,
        False,
        [0] * len(steps),
        1,
    )
    for axis in range(2, weight.dim()):
        found = found.narrow(axis, 0, weight.shape[axis])
    return found.transpose(0, 1)


def _by_products(
    image: Tensor,
    kernel: Tensor,
    weight: Tensor,
    steps: list[int],
    pads: list[int],
    gaps: list[int],
) -> Tensor:
    """Compute each element of the gradient's kernels as a product with the image shifted to it."""
    image = aten.constant_pad_nd(image, [pad for pad in reversed(pads) for _ in range(2)])
    positions = weight.shape[2:]
    parts = []
    for position in itertools.product(*map(range, positions)):
        met = image
        for axis, index in enumerate(position):
            first, step = index * gaps[axis], steps[axis]
            last = first + (kernel.shape[axis + 2] - 1) * step
            met = aten.slice(met, axis + 2, first, last + 1, step)
        parts.append(torch.matmul(kernel.flatten(2), met.flatten(2).transpose(1, 2)).sum(0))
    return torch.stack(parts, -1).reshape([*parts[0].shape, *positions])


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    aten.conv3d.default: _conv3d,
    aten.convolution_backward.default: _backward,
}
