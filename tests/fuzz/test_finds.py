"""Mismatches that random graphs found, each reduced to its operators and with its neighbours."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from models import lambda_module

import portrt

NAN, INF = float("nan"), float("inf")
T = torch.tensor
SPECIAL = T([NAN, INF, -INF, 0.0, -0.0, 1.5, -2.5, 3e-39])
HOLES = T(  # windows of -infinity, of the lowest number, and with NaN
    [[[-INF, -INF, -INF, 1.0], [-INF, -INF, -65504.0, NAN], [-INF, -65504.0, INF, -INF]]]
).repeat(1, 2, 1, 1)
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
    **{
        f"gelu of float64, {kind}": (
            lambda x, kind=kind: F.gelu(x, approximate=kind),
            [torch.cat([torch.linspace(-3, 9, 20), SPECIAL]).double()],
        )
        for kind in ("none", "tanh")
    },
    "log_softmax of float64": (
        lambda x: F.log_softmax(x, -1),
        [T([[1.0, -1.0, NAN], [0.5, INF, 1.0], [-INF, 0.3, 1e3], [-INF, -INF, -INF]]).double()],
    ),
    "powers of float64": (
        lambda x: torch.stack([x**0.3, 0.3**x, x**-0.1, 1.1**x, x ** (1 / 3)]),
        [SPECIAL.double().abs()],
    ),
    "norms of float64": (
        lambda x: torch.norm(x, 3, 0),
        [torch.arange(12.0).double().reshape(3, 4) / 7],
    ),
    "-0.0 beside 0.0": (
        lambda x: torch.stack([x * 0.0, x / -0.0, torch.copysign(x, -0.0), (-0.0) ** x, 0.0**x]),
        [T([1.0, -1.0, 3.0, -3.0])],
    ),
    **{
        f"clamp of {dtype} by one bound, or by an integer": (
            lambda x: torch.stack(
                [
                    *(x.clamp(min=2), x.clamp(max=-0.5), x.clamp(0.5, 2), x.clamp(1, 2.5)),
                    *(torch.clamp_min(x, x[0]), torch.clamp_max(x, x[1]), x.clamp(min=True)),
                ]
            ),
            [T([1.0, -1.0, NAN, INF, -INF, 3.0]).to(dtype)],
        )
        for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16)
    },
    "clamp of integers by floats": (
        lambda x: torch.stack([x.clamp(-2, 2.5), x.clamp(min=0.5), x.clamp(1, True), x + 0.0]),
        [INTEGERS],
    ),
    **{
        f"number % {dtype}": (
            lambda x: torch.stack([2.0 % x, -1.5 % x, 0.1 % x, 0 % x, 1e-3 % x]),
            [T([INF, -INF, NAN, 1e-3, 0.3, -0.7, 5.0]).to(dtype)],
        )
        for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16)
    },
    **{
        f"quotients and remainders of {dtype} by a number": (
            lambda x: torch.stack(
                [x // 0.1, torch.div(x, 0.3, rounding_mode="trunc"), x % 0.1, x.fmod(0.3), x // -1]
            ),
            [torch.cat([torch.linspace(-1, 1, 21), T([NAN, INF, 0.05914306640625])]).to(dtype)],
        )
        for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16)
    },
    **{
        f"comparisons of {dtype} with a number": (
            lambda x: torch.stack([x == 0.1, x != 0.1, x < 0.1, x <= 0.1, x > 1e-3, x >= 1e-3]),
            [T([0.1, 1e-3, NAN, INF, 0.0]).to(dtype)],
        )
        for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16)
    },
    **{
        f"logsigmoid of {dtype}": (
            F.logsigmoid,
            [torch.cat([torch.linspace(-90, 90, 19), SPECIAL]).to(dtype)],
        )
        for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16)
    },
    "infinities of float64": (
        lambda x: torch.stack([x.isinf(), x.isposinf(), x.isneginf(), x.isfinite(), x.isnan()]),
        [T([NAN, INF, -INF, 1e300, -1e40, 0.0]).double()],
    ),
    "infinities of integers": (lambda x: x.isinf() | x.isposinf() | x.isneginf(), [INTEGERS]),
    "nan_to_num of large float64": (torch.nan_to_num, [T([NAN, INF, -INF, 1e300, -1e40]).double()]),
    **{
        f"heaviside and xlogy of {dtype}": (
            lambda x, y: torch.stack([torch.heaviside(x, y), torch.xlogy(x, y), torch.xlogy(y, x)]),
            [
                T([NAN, INF, -INF, 0.0, -2.0, 3.0, 0.0, NAN, 0.0]).to(dtype),
                T([1.0, 0.5, 2.0, NAN, 3.0, 4.0, 0.5, NAN, INF]).to(dtype),
            ],
        )
        for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16)
    },
    "heaviside of integers": (torch.heaviside, [INTEGERS, INTEGERS * 3]),
    "xlogy of integers and numbers": (
        lambda x: torch.stack([torch.xlogy(x, x.abs()), torch.xlogy(2, x), torch.xlogy(x, NAN)]),
        [INTEGERS],
    ),
    **{
        f"lerp of {dtype}": (
            lambda x, y, w: torch.stack(
                [torch.lerp(x, y, w), torch.lerp(x, y, -2.0), x.lerp(y, 0.3)]
            ),
            [
                T([0.0, 1.0, INF, 2.0, -3.0, NAN]).to(dtype),
                T([INF, -INF, INF, -2.0, 6e4, 1.0]).to(dtype),
                T([-2.0, -0.3, 0.4, -1.0, 2.0, 0.5]).to(dtype),
            ],
        )
        for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16)
    },
    "addcdiv of large numbers": (
        lambda x, y: torch.stack([torch.addcdiv(x, y, x, value=v) for v in (1, 2, -0.5, 0)]),
        [T([1.0, INF, 1e-39, 0.0, -3.0]), T([3e38, 3e38, 5.0, 1.0, NAN])],
    ),
    "expm1 far below 0": (torch.expm1, [T([-17.0, -50.0, -88.0, -100.0, -103.5, -1e30, -INF])]),
    **{
        f"threshold of {dtype}": (
            lambda x: torch.stack([F.threshold(x, 0.0, 20.0), F.threshold(x, 1, -1)]),
            [T([torch.iinfo(dtype).max, torch.iinfo(dtype).max - 1, 1, -5, 2]).to(dtype)],
        )
        for dtype in (torch.int64, torch.int32, torch.int16, torch.int8)
    },
    "threshold of float64": (lambda x: F.threshold(x, 0.1, 0.3), [SPECIAL.double()]),
    "sinc of float64": (torch.sinc, [T([0.0, 0.25, 0.5, -1.3, 100.3, NAN]).double()]),
    "sigmoids of float64": (
        lambda x: torch.cat([torch.sigmoid(x), F.silu(x), F.glu(x, 0)]),
        [T([-20.0, -50.0, -300.0, NAN, INF, 20.0, 0.5, -7.0, -1.0, 3.0]).double()],
    ),
    **{
        f"digits of {dtype}": (
            lambda x: torch.stack([torch.round(x, decimals=d) for d in (1, 2, -1, 0)]),
            [T([1.1484375, 0.185546875, 0.2255859375, 15.0, 25.0, NAN, -INF]).to(dtype)],
        )
        for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16)
    },
    **{
        f"roots of {dtype} by powers": (
            lambda x: torch.stack([x**0.5, x**-0.5]),
            [SPECIAL.to(dtype)],
        )
        for dtype in (torch.float16, torch.bfloat16)
    },
    "celu of float64": (lambda x: F.celu(x, alpha=2.0), [SPECIAL.double()]),
    "deg2rad of float64": (torch.deg2rad, [torch.linspace(-1, 400, 20).double()]),
    "rad2deg of float64": (torch.rad2deg, [torch.linspace(-1, 7, 20).double()]),
    "group_norm of float64": (
        lambda x: F.group_norm(x, 2, x[0, :, 0], x[1, :, 0], eps=1e-3),
        [torch.arange(24.0).double().reshape(2, 4, 3) ** 2 / 7],
    ),
    **{
        f"attention of {dtype} that is hidden": (
            lambda x, mask: F.scaled_dot_product_attention(x, x, x, attn_mask=mask),
            [torch.arange(18.0).to(dtype).reshape(1, 2, 3, 3) / 9, T(mask)],
        )
        for dtype in (torch.float32, torch.float64)
        for mask in ([[True] * 3, [False] * 3, [True, False, True]],)
    },
    "attention of float64 with infinities in its mask": (
        lambda x, mask: F.scaled_dot_product_attention(x, x, x, attn_mask=mask),
        [
            torch.arange(12.0).double().reshape(2, 2, 3) / 9,
            T([[0.0, -INF], [-INF, -INF]]).double(),
        ],
    ),
    "attention of float64 that hides infinite scores": (
        lambda x, mask: F.scaled_dot_product_attention(x, x, x, attn_mask=mask),
        [
            T([[1.0, INF, 2.0], [0.5, -1.0, 0.0], [1.0, 2.0, -3.0]]).double(),
            T([[True, True, True], [False, True, True], [False, False, False]]),
        ],
    ),
    "causal attention of float64": (
        lambda x, y: F.scaled_dot_product_attention(x, y, y, is_causal=True, scale=0.3),
        [torch.arange(12.0).double().reshape(4, 3) / 9, torch.arange(9.0).double().reshape(3, 3)],
    ),
    **{
        f"{function.__name__} of {count}, less {correction}": (
            lambda x, f=function, c=correction: f(x, [0], correction=c),
            [torch.arange(2.0 * count).reshape(count, 2)],
        )
        for function in (torch.var, torch.std)
        for count, correction in ((1, 2), (1, 1), (2, 2), (3, 2), (2, 0), (1, 1.5))
    },
    "std_mean of 1, less 2": (
        lambda x: torch.std_mean(x, 0, correction=2)[0],
        [T([[1.0, 2.0]])],
    ),
    "var of nothing": (lambda x: torch.var(x[:0], [0], correction=2), [T([[1.0, 2.0]])]),
    "group_norm of large float16": (
        lambda x: F.group_norm(x, 2),
        [(torch.arange(12.0).reshape(1, 4, 3) % 5 + 1000).half()],
    ),
    **{
        f"diagonal {offset} of {x.dtype}": (
            lambda x, offset=offset: torch.diagonal(x, offset, -1, 0),
            [x],
        )
        for offset, x in (
            (0, T([[NAN, 0.0, INF], [1.0, -INF, 2.0]])),
            (1, T([[NAN, 0.0], [1.0, -INF], [5.0, NAN]]).half()),
            (-1, T([[NAN, 0.0, INF], [1.0, -INF, 2.0]]).bfloat16()),
            (-2, T([[[NAN, 1.0, 2.0]], [[3.0, INF, 2.0]], [[4.0, 1.0, 2.0]]]).double()),
            (1, T([[-(2**63), 7], [2**62 + 1, 5]])),
            (0, T([[True, False], [False, False], [True, True]])),
        )
    },
    "diag beside nan": (torch.diag, [T([[-0.5], [NAN]])]),
    **{
        f"diag {offset} of {dtype}": (
            lambda x, offset=offset: torch.diag(x, offset),
            [T([[NAN, 0.0, INF, 5.0], [1.0, -INF, 2.0, NAN], [NAN, 3.0, NAN, -0.5]]).to(dtype)],
        )
        for offset, dtype in ((-1, torch.bfloat16), (1, torch.float32), (2, torch.float16))
    },
    "diagonal_copy": (torch.diagonal_copy, [T([[NAN, 0.0, INF], [1.0, -INF, 2.0]])]),
    **{
        f"prelu of {dtype} with {count} slopes": (
            F.prelu,
            [
                T([[NAN, 0.0, INF], [1.0, -INF, -0.0], [-2.0, 0.0, 0.0]]).to(dtype),
                T([NAN, INF, 0.5][:count]).to(dtype),
            ],
        )
        for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16)
        for count in (1, 3)
    },
    **{
        f"clamp of {dtype} from one side": (
            lambda x: torch.stack([x.clamp_min(1e-12), x.clamp(min=0.5), x.clamp_max(2.0)]),
            [SPECIAL.to(dtype)],
        )
        for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16)
    },
    **{
        f"normalize of {dtype} with infinity, p={p}": (
            lambda x, p=p: F.normalize(x, p=p, dim=-1),
            [T([[INF, -INF, 0.0], [3.0, -4.0, 0.0], [NAN, 1.0, 2.0]]).to(dtype)],
        )
        for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16)
        for p in (1.0, 2.0)
    },
    "cosine_similarity with infinity": (
        lambda x: F.cosine_similarity(x, x.flip(0), dim=-1),
        [T([[INF, -INF, 0.0], [3.0, -4.0, 0.0], [NAN, 1.0, 2.0]])],
    ),
    **{
        f"cdist of {dtype}, p={p}": (
            lambda x, y, p=p: torch.cdist(x, y, p=p),
            [
                T([[1.0, INF, NAN], [2.0, 3.0, 4.0], [INF, -INF, 0.25]]).to(dtype),
                T([[1.0, 2.0, 3.0], [NAN, 1.0, 2.0], [INF, -INF, 0.0], [NAN] * 3]).to(dtype),
            ],
        )
        for dtype in (torch.float32, torch.float64)
        for p in (0.0, 1.0, 2.0, 3.0, INF)
    },
    **{
        f"isfinite of {dtype}": (torch.isfinite, [T([0, 1, 100]).to(dtype)])
        for dtype in (torch.int16, torch.int64, torch.bool)
    },
    **{
        f"baddbmm without what is added to it, times {alpha}": (
            lambda x, y, alpha=alpha: torch.baddbmm(x, y, y, beta=0, alpha=alpha),
            [T([NAN, INF]), torch.arange(8.0).reshape(2, 2, 2)],
        )
        for alpha in (1, 2)
    },
    "cdist of nothing": (lambda x: torch.cdist(x[:, :0], x[:, :0], p=INF), [T([[1.0, 2.0]])]),
    **{
        f"matmul of {dtype}": (
            lambda x: torch.stack([x.matmul(x.T), x[:1].matmul(x.T).expand(2, 2)]),
            [T([[100, 27, 3], [-128, 127, 55]]).to(dtype)],
        )
        for dtype in (torch.int8, torch.uint8, torch.int16)
    },
    **{
        f"pdist, p={p}": (
            lambda x, p=p: F.pdist(x, p=p),
            [T([[1.0, INF, NAN], [2.0, 3.0, 4.0], [INF, -INF, 0.25], [NAN, 1.0, 2.0]])],
        )
        for p in (0.0, 1.0, INF)
    },
    "trace beside inf": (torch.trace, [T([[1.0, INF], [NAN, 2.0]])]),
    "cumsum that leaves its range": (lambda x: x.cumsum(0), [T([3e38, 3e38, -3e38, 1.0])]),
    "cumsum of small terms": (lambda x: x.cumsum(-1), [T([[1e8, 1.0, -1e8], [1.0, 1e-9, -1.0]])]),
    "cumsum of bfloat16": (lambda x: x.cumsum(0), [T([3e38, 3e38, -3e38, 1.0]).bfloat16()]),
    "cumsum of float16": (lambda x: x.cumsum(0), [T([2048, 1.0, 1.0, -2048, 6e4, 6e4]).half()]),
    "cumprod that leaves its range": (
        lambda x: x.cumprod(0),
        [T([[1e30, 1e-30], [1e30, 1e-30], [1e-30, 1e30]])],
    ),
    "cumprod of float16": (lambda x: x.cumprod(0), [T([6e4, 6e4, 1e-6, 0.1]).half()]),
    "cumprod of bfloat16": (lambda x: x.cumprod(0), [T([1.01] * 9).bfloat16()]),
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
    **{
        f"max_pool{rank}d of -inf, {dtype}": (
            lambda x, pool=pool, rank=rank: pool(x[(0,) * (3 - rank)], 2, stride=1),
            [HOLES.to(dtype)],
        )
        for rank, pool in ((1, F.max_pool1d), (2, F.max_pool2d), (3, F.max_pool3d))
        for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16)
    },
    "max_pool2d of -inf and padding": (lambda x: F.max_pool2d(x[0], 2, 1, 1), [HOLES]),
    "max_pool3d of single elements": (lambda x: F.max_pool3d(x, 1), [HOLES]),
    "indices of max_pool2d of -inf": (
        lambda x: F.max_pool2d(x, 2, 1, 1, return_indices=True)[1],
        [T([[[-INF, -INF, 1.0], [-INF, -INF, 2.0]]])],
    ),
    **{
        f"max_pool{rank}d of padding alone": (
            lambda x, pool=pool: pool(x, 2, padding=1, dilation=2),
            [T([1.0, 2.0, 3.0]).reshape([3] + [1] * rank)],
        )
        for rank, pool in ((1, F.max_pool1d), (2, F.max_pool2d), (3, F.max_pool3d))
    },
    **{
        f"isclose of {str(dtype).removeprefix('torch.')}": (
            lambda x, y: torch.stack([torch.isclose(x, y), torch.isclose(x, y, rtol=0.1, atol=1)]),
            [
                torch.tensor([torch.iinfo(dtype).min, 1, torch.iinfo(dtype).min, 10, 100]).to(
                    dtype
                ),
                torch.tensor([torch.iinfo(dtype).max, 1, 0, 11, 10]).to(dtype),
            ],
        )
        for dtype in (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8)
    },
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


@pytest.mark.filterwarnings("ignore:.*degrees of freedom:UserWarning")
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


def test_diagonals_have_the_sizes_of_the_call() -> None:
    def diagonals(x: torch.Tensor, y: torch.Tensor) -> list[torch.Tensor]:
        made = [(x > 0).diagonal().logical_not()]
        for offset in (0, 1, -1, 3):
            made += [torch.diag(x, offset), torch.diagonal(y, offset, -1, 0)]
        return made

    rows = torch.export.Dim("rows", min=2, max=5)
    program = portrt.compile(
        lambda_module(diagonals)(),
        inputs=[torch.ones(3, 3), torch.ones(3, 2, 4)],
        dynamic_shapes=({0: rows}, {0: rows}),
        engines="onnxruntime",
        output_format="exported_program",
    )

    for size in (2, 3, 4, 5):
        x, y = torch.randn(size, 3), torch.randn(size, 2, 4)
        torch.testing.assert_close(program.module()(x, y), diagonals(x, y), rtol=0, atol=0)
