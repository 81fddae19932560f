"""Finds of the fuzzer with dynamic sizes: each graph is called at the ends of its ranges."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch.export import Dim

import portrt

A = Dim("a", min=0, max=4)
B = Dim("b", min=1, max=4)


def _doubles(*shape: Any) -> Callable[[int], torch.Tensor]:
    return lambda size: torch.arange(
        float(torch.Size([size if it is None else it for it in shape]).numel()), dtype=torch.float64
    ).reshape([size if it is None else it for it in shape])


def _floats(*shape: Any) -> Callable[[int], torch.Tensor]:
    return lambda size: _doubles(*shape)(size).float()


# Function, dynamic_shapes, inputs of a size.
CASES = {
    "sizes that torch.export takes for those of the example": (
        lambda x: torch.sinc(x.reshape([x.shape[1], x.shape[2], -1])),
        ({1: B, 2: B},),
        (_doubles(2, None, None),),
    ),
    "causal attention of rank 3": (
        lambda q, k: F.scaled_dot_product_attention(q, k, k, is_causal=True),
        ({1: B}, {}),
        (_floats(2, None, 2), _floats(2, 1, 2)),
    ),
    "pixel_shuffle of an image alone": (
        lambda x: F.pixel_shuffle(x, 2),
        ({1: A},),
        (_floats(4, None, 3),),
    ),
    "pixel_shuffle of several batches": (
        lambda x: F.pixel_shuffle(x, 2),
        ({0: A},),
        (_floats(None, 2, 4, 1, 3),),
    ),
    "pixel_unshuffle of several batches": (
        lambda x: F.pixel_unshuffle(x, 2),
        ({0: B},),
        (_floats(None, 2, 3, 4, 2),),
    ),
    "repeat_interleave": (
        lambda x: torch.repeat_interleave(x, 3, -1),
        ({0: A},),
        (_floats(None, 2),),
    ),
    "repeat_interleave of a flattened tensor": (
        lambda x: torch.repeat_interleave(x, 2),
        ({0: A},),
        (_floats(None, 2),),
    ),
    "repeat_interleave of nothing": (
        lambda x: torch.repeat_interleave(x, 3, 0),
        ({0: A},),
        (_floats(None, 0),),
    ),
    "std_mean with a correction above the count": (
        lambda x: torch.std_mean(x, [1], keepdim=True, correction=2),
        ({1: A},),
        (_doubles(3, None),),
    ),
    **{
        f"logsumexp of {text}": (
            lambda x, y: torch.logsumexp(torch.cat([x, y.flatten()[: x.shape[0]]]), -1),
            ({0: B}, {}),
            (_floats(None), lambda _, values=values: torch.tensor([values])),
        )
        for text, values in (
            ("infinity and NaN", [math.inf, math.nan, 1.0, 2.0]),
            ("negative infinity and NaN", [-math.inf, -math.inf, math.nan, 0.0]),
            ("infinities", [math.inf, -math.inf, -math.inf, 0.0]),
        )
    },
    "logsumexp of several rows, or one": (
        lambda x: torch.logsumexp(x, (0, 2), keepdim=True),
        ({1: B},),
        (_doubles(2, None, 3),),
    ),
    "roll": (lambda x: torch.roll(x, 1, 0), ({0: A},), (_floats(None, 2),)),
    "roll of a flattened tensor": (lambda x: torch.roll(x, 1), ({0: A},), (_floats(None, 2),)),
}


@pytest.mark.filterwarnings("ignore:.*degrees of freedom:UserWarning")
@pytest.mark.filterwarnings("ignore:block_0 runs in PyTorch")
@pytest.mark.parametrize("name", CASES)
def test_results_are_eagers_at_all_sizes(name: str) -> None:
    function, shapes, makes = CASES[name]

    class Model(torch.nn.Module):
        def forward(self, *inputs: torch.Tensor) -> Any:
            return function(*inputs)

    program = portrt.compile(
        Model().eval(),
        inputs=[make(2) for make in makes],
        dynamic_shapes=(shapes,),
        engines="onnxruntime",
        min_block_size=1,
        check="off",
        output_format="exported_program",
    )
    least = min(dim.min for own in shapes for dim in own.values())
    for size in (4, 1, least):
        inputs = [make(size) for make in makes]
        torch.testing.assert_close(program.module()(*inputs), function(*inputs), equal_nan=True)
