"""Numbers at which ONNX Runtime's kernels, or torch.onnx's translations, differ from PyTorch's.

All functions are compiled in one program, for ordinary inputs, and called with special ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import portrt

F = torch.nn.functional
aten = torch.ops.aten
inf, nan = float("inf"), float("nan")

Case = tuple[Callable[..., Any], list[Tensor]]


def _t(*rows: Any, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.tensor(rows, dtype=dtype)


_ROW = _t([1, nan, 3, 2, 5, -inf, inf, 0], [2, 1, 4, 3, nan, nan, 0, -1], [8, 7, 6, 5, 4, 3, 2, 1])
_PLANE = torch.arange(36.0).reshape(1, 1, 6, 6)
_PLANES = torch.cat([_PLANE, _PLANE.masked_fill(_PLANE % 11 == 3, nan)], 1)
_INDEX = torch.tensor([[0, 1, 0], [2, 2, 1]])
_EXPONENTS = _t([200, -200, 7903, inf, -inf, -inf, nan, 1], [0.5, -300, 90, inf, inf, 3, 1, nan])


def _of_float_dtypes() -> dict[str, Case]:
    found: dict[str, Case] = {}
    for dtype in (torch.float32, torch.float16, torch.float64):
        x = _ROW.to(dtype)
        for name in ("amax", "amin", "argmax", "argmin"):
            reduce = getattr(torch, name)
            for axis in (-1, 0):
                found[f"{name} of {axis} {dtype}"] = (
                    lambda x, reduce=reduce, axis=axis: reduce(x, axis),
                    [x],
                )
        for name in ("max", "min"):
            reduce = getattr(torch, name)
            found[f"{name} {dtype}"] = (reduce, [x])
            found[f"{name} with positions {dtype}"] = (
                lambda x, reduce=reduce: reduce(x, 1),
                [x[:, :5]],
            )
        found[f"sort {dtype}"] = (lambda x: torch.sort(x, -1)[0], [x])
        found[f"topk {dtype}"] = (lambda x: torch.topk(x, 3, -1)[0], [x])
        found[f"max_pool2d {dtype}"] = (
            lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True),
            [_PLANES.to(dtype)],
        )
        found[f"scatter amax {dtype}"] = (
            lambda x, i, y: torch.scatter_reduce(x, 0, i, y, "amax"),
            [_t([1, nan, 2], [3, 4, 5], [0, 0, nan], dtype=dtype), _INDEX, x[:2, :3]],
        )
    return found


def _extremes() -> dict[str, Case]:
    return {
        "max_pool1d": (lambda x: F.max_pool1d(x, 2), [_ROW]),
        "max_pool3d": (lambda x: F.max_pool3d(x, 2, 1), [torch.stack([_PLANES, _PLANES], 2)]),
        "dilated": (lambda x: F.max_pool2d(x, 2, 1, 0, 2), [_PLANES]),
        "scatter amin": (
            lambda x, i, y: torch.scatter_reduce(x, 0, i, y, "amin", include_self=False),
            [_t([1, nan, 2], [3, 4, 5], [0, 0, nan]), _INDEX, _t([1, 2, inf], [nan, 3, inf])],
        ),
        "scatter amax alone": (
            lambda x, i, y: torch.scatter_reduce(x, 0, i, y, "amax", include_self=False),
            [_t([1, nan, 2], [3, 4, 5], [0, 0, nan]), _INDEX, _t([1, 2, -inf], [nan, 3, -inf])],
        ),
        "maximum": (torch.maximum, [_ROW, _ROW.flip(-1)]),
        "clamp": (lambda x: x.clamp(0, 2), [_ROW]),
        "nanmean": (lambda x: torch.nanmean(x, 0), [_t([inf, nan, nan], [1, 2, nan])]),
        "group_norm": (lambda x: F.group_norm(x, 1), [_t([[inf, 1], [2, 3]])]),
        "layer_norm": (lambda x: F.layer_norm(x, (8,)), [_ROW]),
        "hypot": (
            torch.hypot,
            [_t(3e20, 1e-30, nan, inf, 0, nan, -inf), _t(4e20, 1e-30, inf, nan, 0, 1, inf)],
        ),
        "cosine_similarity": (
            lambda x: F.cosine_similarity(x, x.flip(0), dim=-1),
            [_t([1e-5, 2e-5], [3e-5, 2e-5])],
        ),
        "var of a large mean": (lambda x: x.var(-1), [_t([3e4, 3e4 + 1, 3e4 + 2, 3e4 + 3])]),
        "logsumexp": (lambda x: x.logsumexp(-1), [_t([inf, 1], [-inf, -inf])]),
    }


def _prefixes() -> dict[str, Case]:
    numbers = _t([1e30, 1e-30, 1e30, 1e-20], [2, nan, 1, 0], [-1, 3, inf, 0])
    found: dict[str, Case] = {
        "logaddexp": (torch.logaddexp, [_EXPONENTS, _EXPONENTS.flip(0)]),
        "logaddexp to a row": (torch.logaddexp, [_EXPONENTS, _EXPONENTS[0]]),
        "logaddexp2": (torch.logaddexp2, [_EXPONENTS, _EXPONENTS.flip(-1)]),
        "logaddexp half": (torch.logaddexp, [_EXPONENTS.half(), _EXPONENTS.flip(0).half()]),
        "logcumsumexp half": (lambda x: torch.logcumsumexp(x, -1), [_EXPONENTS.bfloat16()]),
        "logcumsumexp of one": (lambda x: torch.logcumsumexp(x, 0), [_t(3)]),
        "cumprod half": (lambda x: x.cumprod(0), [numbers.half()]),
        "cumprod of a vector": (lambda x: x.cumprod(0), [_t(2, 3, 4)]),
        "cumprod of whole numbers": (
            lambda x: x.cumprod(-1),
            [torch.tensor([[3**20, 3**15, 3**10]])],
        ),
        "cumprod of bytes": (
            lambda x: x.cumprod(-1),
            [torch.tensor([[200, 3, 2]], dtype=torch.uint8)],
        ),
        "cumprod in double": (lambda x: x.cumprod(-1, dtype=torch.float64), [numbers]),
    }
    for axis in (-1, 0):
        found[f"logcumsumexp {axis}"] = (
            lambda x, axis=axis: torch.logcumsumexp(x, axis),
            [_EXPONENTS],
        )
        found[f"cumprod {axis}"] = (lambda x, axis=axis: x.cumprod(axis), [numbers])
    return found


def _shifts() -> dict[str, Case]:
    found: dict[str, Case] = {}
    for dtype in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64):
        info = torch.iinfo(dtype)
        x = torch.tensor([info.min, info.max, 1, 100, 77 if info.min == 0 else -3], dtype=dtype)
        x = x.unsqueeze(1)
        least = 0 if info.min == 0 else -1
        amounts = torch.tensor([least, 0, 1, info.bits - 1, info.bits, 100], dtype=dtype)
        found[f"left {dtype}"] = (lambda x, y: x << y, [x, amounts])
        found[f"right {dtype}"] = (lambda x, y: x >> y, [x, amounts])
        found[f"numbers {dtype}"] = (
            lambda x: [f(x, n) for f in _SHIFTS for n in (-1, 4, 8)],
            [x],
        )
        found[f"of a number {dtype}"] = (lambda y: [f(9, y) for f in _SHIFTS], [amounts])
    return found


_SHIFTS = (torch.bitwise_left_shift, torch.bitwise_right_shift)


def _attention() -> dict[str, Case]:
    found: dict[str, Case] = {}
    generator = torch.Generator().manual_seed(0)
    for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
        low = torch.finfo(dtype).min
        q, k, v = (torch.randn(1, 2, 5, 8, generator=generator).to(dtype) for _ in range(3))
        rows = [
            [0.0] * 5,
            [low] * 5,
            [low, -inf, -inf, low, -inf],
            [-inf] * 5,
            [low, 0, 0, 0, -inf],
        ]
        found[f"masked by numbers {dtype}"] = (
            lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, m),
            [q, k, v, torch.tensor(rows, dtype=dtype)],
        )
        found[f"masked {dtype}"] = (
            lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, m),
            [q, k, v, torch.tensor(rows) == 0],
        )
    return found


def _bags() -> dict[str, Case]:
    indices = torch.tensor([1, 2, 4, 5, 4, 3, 2, 6])
    found: dict[str, Case] = {}
    for dtype in (torch.float32, torch.float64):
        weight = torch.arange(30.0).reshape(10, 3).to(dtype)
        for number, ends in enumerate(([0, 2, 4], [0, 3, 3, 8])):
            found[f"bags {number} {dtype}"] = (
                lambda w, i, o: [
                    op(w, i, o, False, mode, False, None, True, padding)
                    for op in (aten._embedding_bag, aten._embedding_bag_forward_only)
                    for mode in (0, 1, 2)
                    for padding in (-1, 4)[: 1 + (mode == 0)]
                ],
                [weight, indices, torch.tensor(ends)],
            )
    return found


CASES: dict[str, Case] = {
    **_of_float_dtypes(),
    **_extremes(),
    **_prefixes(),
    **_shifts(),
    **_attention(),
    **_bags(),
}


class _All(nn.Module):
    def forward(self, tensors: list[list[Tensor]]) -> list[Any]:
        return [function(*own) for (function, _), own in zip(CASES.values(), tensors, strict=True)]


def _ordinary(x: Tensor) -> Tensor:
    """Numbers of an example, at which nothing is special; indices stay as they are."""
    return torch.rand_like(x.float()).to(x.dtype) + 1 if x.dtype.is_floating_point else x.clone()


@pytest.fixture(scope="module")
def results() -> dict[str, tuple[Any, Any]]:
    """What the program gives for each case, and what eager PyTorch does."""
    torch.manual_seed(0)
    examples = [[_ordinary(x) for x in own] for _, own in CASES.values()]
    program = portrt.compile(
        _All().eval(),
        inputs=[examples],
        engines="onnxruntime",
        min_block_size=1,
        check="off",
        require_full_compilation=True,
        cache_dir="off",
    )
    given = [own for _, own in CASES.values()]
    found, wanted = program(given), _All()(given)
    return {name: (f, w) for name, f, w in zip(CASES, found, wanted, strict=True)}


@pytest.mark.parametrize("name", CASES)
def test_numbers_are_those_of_eager(name: str, results: dict[str, tuple[Any, Any]]) -> None:
    found, wanted = results[name]

    half = any(x.dtype in (torch.float16, torch.bfloat16) for x in CASES[name][1])
    bounds = {"rtol": 2e-2, "atol": 2e-2} if half else {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(found, wanted, equal_nan=True, **bounds)
