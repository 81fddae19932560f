"""Max pooling whose windows may lie wholly in padding: it stays in PyTorch, and only then."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.export import Dim

import portrt
from portrt.runtime.calls import engine_calls

# Kernel, stride, padding, dilation, ceil_mode, and sizes of the pooled dimensions.
POOLS: list[tuple[Any, ...]] = [
    (nn.functional.max_pool1d, 2, 1, 1, 2, False, (1,)),
    (nn.functional.max_pool1d, 2, 2, 1, 2, True, (2,)),
    (nn.functional.max_pool1d, 2, 1, 1, 3, False, (2,)),
    (nn.functional.max_pool1d, 3, 1, 1, 3, True, (5,)),
    (nn.functional.max_pool2d, 2, 1, 1, 2, False, (1, 5)),
    (nn.functional.max_pool2d, (2, 2), (2, 1), (1, 1), (1, 2), True, (1, 1)),
    (nn.functional.max_pool2d, (1, 2), 1, (0, 1), (1, 4), False, (5, 3)),
    (nn.functional.max_pool2d, 3, 2, 1, 1, True, (1, 1)),
    (nn.functional.max_pool2d, [2], 1, [1], [2], False, (1, 5)),
    (nn.functional.max_pool3d, [2], [1], 1, 2, False, (1, 5, 4)),
    (nn.functional.max_pool3d, 2, 1, 1, 2, False, (1, 4, 4)),
    (nn.functional.max_pool3d, 2, 1, 1, (1, 1, 2), False, (1, 1, 2)),
]


class Pools(nn.Module):
    def forward(self, images: list[torch.Tensor]) -> list[Any]:
        found: list[Any] = []
        for (pool, kernel, stride, padding, dilation, ceil_mode, _), image in zip(
            POOLS, images, strict=True
        ):
            found += pool(image, kernel, stride, padding, dilation, ceil_mode, return_indices=True)
        return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_windows_in_padding_are_pytorchs(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    images = [torch.randn(2, 3, *case[-1]).to(dtype) for case in POOLS]
    for image in images[1::2]:
        image[0] = -torch.inf
    program = portrt.compile(
        Pools(), inputs=[images], engines="onnxruntime", min_block_size=1, check="error"
    )
    for found, wanted in zip(program(images), Pools()(images), strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize(("low", "whole"), [(1, False), (3, True)])
def test_a_range_decides_by_its_smallest_size(low: int, whole: bool) -> None:
    class Pool(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.max_pool2d(x * 2, 2, 1, 1, 2) + 1

    program = portrt.compile(
        Pool(),
        inputs=[torch.randn(2, 3, 6, 5)],
        dynamic_shapes=({2: Dim("length", min=low, max=9)},),
        engines="onnxruntime",
        min_block_size=1,
        output_format="exported_program",
    )
    outside = [node for node in program.graph.nodes if "max_pool" in str(node.target)]
    assert (not outside) == whole
    assert list(engine_calls(program))
    x = torch.randn(2, 3, 3, 5)
    torch.testing.assert_close(program.module()(x), Pool()(x), rtol=0, atol=0)
