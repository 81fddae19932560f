"""Resizing by factors in engines, unchecked by `compile`, against eager PyTorch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import portrt
from portrt.runtime.calls import engine_calls

_MODES = {
    3: ("linear", "nearest", "nearest-exact"),
    4: ("bilinear", "bicubic", "nearest", "nearest-exact"),
    5: ("trilinear", "nearest", "nearest-exact"),
}


class Resized(nn.Module):
    """The input in every mode, by every factor."""

    def __init__(self, rank: int, factors: Any, *, antialias: bool) -> None:
        super().__init__()
        self.calls: list[dict[str, Any]] = []
        for mode in _MODES[rank]:
            has_corners = "linear" in mode or mode == "bicubic"
            for corners in (False, True) if has_corners else (None,):
                for smooth in (
                    (False, True) if antialias and rank == 4 and has_corners else (False,)
                ):
                    for factor in factors:
                        self.calls.append(
                            {
                                "mode": mode,
                                "align_corners": corners,
                                "antialias": smooth,
                                "scale_factor": factor,
                            }
                        )

    def forward(self, x: torch.Tensor) -> Any:
        return tuple(nn.functional.interpolate(x, **call) for call in self.calls)


def compiled(model: Resized, given: Any) -> Any:
    program = portrt.compile(
        model,
        inputs=[given],
        engines="onnxruntime",
        min_block_size=1,
        check="off",
        output_format="exported_program",
    )
    assert len(list(engine_calls(program))) == 1
    return program.module()


def assert_equal(model: Resized, module: Any, x: torch.Tensor) -> None:
    tolerance = 5e-3 if x.dtype == torch.float16 else 5e-5
    for call, got, want in zip(model.calls, module(x), model(x), strict=True):
        torch.testing.assert_close(
            got, want, rtol=0, atol=tolerance, msg=lambda text, call=call: f"{call}: {text}"
        )


# Factors of which the output has the input's size, in all dimensions or in some; those whose
# product and quotient differ; twice the size by another factor than 2.
@pytest.mark.parametrize(
    ("shape", "factors", "dtype"),
    [
        ((1, 2, 3), (1.1, 1.3, 0.6, 2.0, 2.3), torch.float32),
        ((1, 2, 3, 3), (1.1, 0.9, 2.0, 2.3, (1.1, 2.0), (1.0, 0.6)), torch.float32),
        ((1, 2, 3, 70), (1.2, 0.6), torch.float32),
        ((1, 2, 130, 2), ((1.005, 1.3),), torch.float32),
        ((1, 2, 3, 2, 3), (1.1, (1.0, 1.3, 2.0)), torch.float32),
        ((1, 2, 7, 3), (1.1, 0.7, 2.0), torch.float16),
    ],
    ids=str,
)
def test_sizes_that_are_known(shape: Any, factors: Any, dtype: torch.dtype) -> None:
    model = Resized(len(shape), factors, antialias=dtype == torch.float32).eval()
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)

    assert_equal(model, compiled(model, x), x)


@pytest.mark.parametrize("rank", [3, 4])
def test_sizes_of_which_some_stay_as_they_are(rank: int) -> None:
    model = Resized(rank, (1.3, 2.3), antialias=False).eval()
    largest = (1, 2, *[12] * (rank - 2))
    given = portrt.Input(
        min_shape=(1, 2, *[2] * (rank - 2)), opt_shape=(1, 2, 5, 6)[:rank], max_shape=largest
    )
    module = compiled(model, given)
    for size in (2, 3, 4, 11):
        generator = torch.Generator().manual_seed(size)
        x = torch.randn((1, 2, size, size + 1)[:rank], generator=generator)
        assert_equal(model, module, x)
