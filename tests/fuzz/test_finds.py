"""Mismatches that random graphs found, each reduced to its operators and with its neighbours."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

import portrt

NAN, INF = float("nan"), float("inf")
T = torch.tensor
SPECIAL = T([NAN, INF, -INF, 0.0, -0.0, 1.5, -2.5, 3e-39])
INTEGERS = T([-7, -1, 0, 1, 5])

# Name of the find: what it computes, and its inputs.
FINDS: dict[str, tuple[Callable[..., torch.Tensor], Sequence[torch.Tensor]]] = {
    "signbit": (torch.signbit, [SPECIAL[1:]]),
    "signbit of float16": (torch.signbit, [SPECIAL[1:].half()]),
    "signbit of int8": (torch.signbit, [INTEGERS.to(torch.int8)]),
    "signbit of bool": (torch.signbit, [T([True, False])]),
    "copysign of a number": (lambda x: torch.copysign(x, -0.0), [SPECIAL[1:]]),
    "copysign of a tensor": (torch.copysign, [SPECIAL, SPECIAL[1:].repeat(8, 1).T.clone()]),
    "copysign of integers": (torch.copysign, [INTEGERS, -INTEGERS]),
    "copysign of float64 and float32": (torch.copysign, [SPECIAL.double(), -torch.ones(8)]),
    "atan2 of signed zeros": (torch.atan2, [SPECIAL, SPECIAL.flip(0)]),
    "sinc of float16": (torch.sinc, [T([1.0, 2.0, 0.5, 0.0, NAN, 100.0]).half()]),
    "sinc of bfloat16": (torch.sinc, [T([1.0, 2.0, 0.5, 0.0, NAN, 100.0]).bfloat16()]),
    **{
        f"erfc of {dtype}": (
            torch.erfc,
            [torch.cat([torch.linspace(-3, 9, 40), SPECIAL]).to(dtype)],
        )
        for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16)
    },
    "erfc of integers": (torch.erfc, [INTEGERS]),
    "number // tensor": (lambda x: -1.5 // x, [SPECIAL[1:]]),
    "number // integers": (lambda x: 7 // x, [T([-7, -2, 1, 5])]),
    "float // integers": (lambda x: -1.5 // x, [T([-7, -2, 1, 5])]),
    "number // int8": (lambda x: 100 // x, [T([-7, -2, 1, 5], dtype=torch.int8)]),
    "floor_divide of dtypes": (torch.floor_divide, [T([-7, 7, 5]), T([2.0, -2.0, 0.1])]),
    "layer_norm of float64": (
        lambda x: F.layer_norm(x, [5], x[0], x[1], eps=1e-3),
        [torch.arange(15.0).double().reshape(3, 5) ** 2],
    ),
    "rms_norm of float64": (
        lambda x: F.rms_norm(x, [3, 5], x[0], eps=1e-3),
        [torch.arange(15.0).double().reshape(1, 3, 5) / 7],
    ),
    "batch_norm of float64": (
        lambda x, mean, var: F.batch_norm(x, mean, var, mean, var),
        [T([[0.0, 1.0], [2.0, 5.0]]).double(), T([1.0, 0.5]).double(), torch.zeros(2).double()],
    ),
    "nan_to_num of float64": (torch.nan_to_num, [SPECIAL.double()]),
    "numbers beyond float32": (
        lambda x: torch.stack([x + 1e300, x * -3.3e-310, x.clamp(-1.7e308, 2e-200), x / 1e-45]),
        [SPECIAL.double()],
    ),
    "masked_fill of float64": (
        lambda x: x.masked_fill(x > 0, 0.1),
        [SPECIAL.double()],
    ),
    "celu of float64": (lambda x: F.celu(x, alpha=2.0), [SPECIAL.double()]),
    "deg2rad of float64": (torch.deg2rad, [torch.linspace(-1, 400, 20).double()]),
    "rad2deg of float64": (torch.rad2deg, [torch.linspace(-1, 7, 20).double()]),
    "adaptive_avg_pool1d beside nan": (
        lambda x: F.adaptive_avg_pool1d(x, 3),
        [T([[1.0, 2.0, 3.0, NAN, INF, -INF, 1.0]])],
    ),
    "adaptive_avg_pool1d of multiples beside inf": (
        lambda x: F.adaptive_avg_pool1d(x, 3),
        [T([[1.0, 2.0, 3.0, NAN, INF, -INF]])],
    ),
    "adaptive_avg_pool2d beside inf": (
        lambda x: F.adaptive_avg_pool2d(x, (3, 2)),
        [SPECIAL.repeat(5, 1)[None].clone()],
    ),
    "adaptive_avg_pool2d of large float16": (
        lambda x: F.adaptive_avg_pool2d(x, (2, 3)),
        [torch.full((1, 5, 7), 6e4, dtype=torch.float16)],
    ),
    "sign used in another block": (
        lambda x: torch.where(torch.signbit(x), torch.lgamma(x), x),
        [SPECIAL[1:]],
    ),
}


class _All(torch.nn.Module):
    def forward(self, tensors: list[list[torch.Tensor]]) -> list[torch.Tensor]:
        return [function(*own) for (function, _), own in zip(FINDS.values(), tensors, strict=True)]


@pytest.fixture(scope="module")
def results() -> dict[str, torch.Tensor]:
    """All finds in one program, compiled for ones and called with their inputs."""
    inputs = [list(tensors) for _, tensors in FINDS.values()]
    ones = [[torch.ones_like(tensor) for tensor in own] for own in inputs]
    program = portrt.compile(
        _All(),
        inputs=[ones],
        engines="onnxruntime",
        min_block_size=1,
        output_format="exported_program",
    )
    return dict(zip(FINDS, program.module()(inputs), strict=True))


@pytest.mark.parametrize("name", FINDS)
def test_result_is_eagers(results: dict[str, torch.Tensor], name: str) -> None:
    function, tensors = FINDS[name]
    wanted = function(*tensors)
    bounds = {"rtol": 1e-11, "atol": 1e-38} if wanted.dtype == torch.float64 else {}
    torch.testing.assert_close(results[name], wanted, equal_nan=True, **bounds)
    if wanted.dtype == torch.float32:  # small results, too
        torch.testing.assert_close(results[name], wanted, equal_nan=True, rtol=1e-5, atol=1e-37)
    if name.startswith(("copysign", "atan2")):
        zeros = wanted == 0
        assert torch.equal(results[name][zeros].signbit(), wanted[zeros].signbit())
