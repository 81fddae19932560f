"""Norms, pooling, resizing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from fuzz.builder import Builder, NotHereError
from fuzz.values import FLOATS

Draw = Callable[[Builder], None]


def _static_size(b: Builder, x: object, dim: int) -> int:
    size = b.size(x, dim)  # type: ignore[arg-type]
    if not isinstance(size, int) or size == 0:
        raise NotHereError
    return size


def _last_norm(name: str, b: Builder) -> None:
    x = b.value(FLOATS, (1, 5))
    size = _static_size(b, x, -1)
    weight = b.new(b.dtype(x), [size]) if b.boolean() else None
    given = {"eps": b.choice((1e-5, 1e-3))} if b.boolean() else {}
    bias = [b.new(b.dtype(x), [size])] if weight and name == "layer_norm" and b.boolean() else []
    b.add(f"F.{name}", x, [size], weight, *bias, **given)


def _group_norm(b: Builder) -> None:
    x = b.value(FLOATS, (2, 5))
    size = _static_size(b, x, 1)
    groups = b.choice([count for count in range(1, size + 1) if size % count == 0])
    weight = b.new(b.dtype(x), [size]) if b.boolean() else None
    b.add("F.group_norm", x, groups, weight, *([b.new(b.dtype(x), [size])] if weight else []))


def _instance_norm(b: Builder) -> None:
    b.add("F.instance_norm", b.value(FLOATS, (3, 5)))


def _batch_norm(b: Builder) -> None:
    x = b.value(FLOATS, (2, 5))
    size = _static_size(b, x, 1)
    mean = b.new(b.dtype(x), [size], "normal")
    spread = b.new(b.dtype(x), [size], "zeros")
    weight = b.new(b.dtype(x), [size]) if b.boolean() else None
    bias = b.new(b.dtype(x), [size]) if weight else None
    b.add("F.batch_norm", x, mean, spread, weight, bias)


def _normalize(b: Builder) -> None:
    x = b.value(FLOATS, (1, 5))
    b.add("F.normalize", x, p=b.choice((2.0, 1.0)), dim=b.dim(x))


def _similarity(b: Builder) -> None:
    x = b.value(FLOATS, (1, 5))
    b.add("F.cosine_similarity", x, b.same(x), dim=b.dim(x))


def _pool(kind: str, rank: int, b: Builder) -> None:
    x = b.value(FLOATS, (rank + 1, rank + 2))
    kernel = b.int(1, 3)
    given: dict[str, object] = {"stride": b.int(1, 3), "ceil_mode": b.boolean()}
    given["padding"] = b.int(0, kernel // 2)
    if kind == "avg" and b.boolean():
        given["count_include_pad"] = False
    if kind == "avg" and rank > 1 and b.rarely():
        given["divisor_override"] = 3
    if kind == "max" and b.boolean():
        given["dilation"] = b.int(1, 2)
    if kind == "max" and b.rarely():
        b.add(f"F.max_pool{rank}d", x, kernel, return_indices=True, results=2, **given)
    else:
        b.add(f"F.{kind}_pool{rank}d", x, kernel, **given)


def _adaptive_pool(kind: str, rank: int, b: Builder) -> None:
    x = b.value(FLOATS, (rank + 1, rank + 2))
    sizes = [b.int(1, 3) for _ in range(rank)]
    b.add(f"F.adaptive_{kind}_pool{rank}d", x, sizes)


def _interpolate(b: Builder) -> None:
    x = b.value(FLOATS, (3, 5))
    modes = {3: ("linear",), 4: ("bilinear", "bicubic", "area"), 5: ("trilinear", "area")}
    mode = b.choice(("nearest", "nearest-exact", *modes[b.rank(x)]))
    given: dict[str, object] = {"mode": mode}
    if mode.endswith(("linear", "cubic")):
        given["align_corners"] = b.boolean()
    if b.boolean():
        given["scale_factor"] = b.choice((2, 0.5, 1.5, 3))
    else:
        given["size"] = [b.int(1, 6) for _ in range(b.rank(x) - 2)]
    b.add("F.interpolate", x, **given)


def _pixel_shuffle(b: Builder) -> None:
    x = b.value((*FLOATS, torch.int64), (3, 4))
    b.add(f"F.{b.choice(('pixel_shuffle', 'pixel_unshuffle', 'channel_shuffle'))}", x, b.int(1, 2))


def _glu(b: Builder) -> None:
    x = b.value(FLOATS, (1, 5))
    b.add("F.glu", x, b.dim(x))


def _prelu(b: Builder) -> None:
    x = b.value(FLOATS, (2, 5))
    b.add("F.prelu", x, b.new(b.dtype(x), [_static_size(b, x, 1) if b.boolean() else 1]))


def _response_norm(b: Builder) -> None:
    b.add("F.local_response_norm", b.value(FLOATS, (3, 5)), b.int(1, 3))


OPERATORS: dict[str, Draw] = {
    **{name: partial(_last_norm, name) for name in ("layer_norm", "rms_norm")},
    "group_norm": _group_norm,
    "instance_norm": _instance_norm,
    "batch_norm": _batch_norm,
    "normalize": _normalize,
    "cosine_similarity": _similarity,
    **{f"{k}_pool{r}d": partial(_pool, k, r) for k in ("max", "avg") for r in (1, 2, 3)},
    **{
        f"adaptive_{kind}_pool{rank}d": partial(_adaptive_pool, kind, rank)
        for kind in ("max", "avg")
        for rank in (1, 2)
    },
    "interpolate": _interpolate,
    "pixel_shuffle": _pixel_shuffle,
    "glu": _glu,
    "prelu": _prelu,
    "local_response_norm": _response_norm,
}
