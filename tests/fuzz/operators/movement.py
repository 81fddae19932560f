"""Operators that move elements: shapes, slices, concatenation, padding."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from fuzz.builder import Builder, NotHereError

Draw = Callable[[Builder], None]


def _reshape(b: Builder) -> None:
    x = b.any((1, 5))
    rank = b.rank(x)
    kind = b.int(0, 3)
    if kind == 0:
        b.add(".reshape", x, -1)
    elif kind == 1:
        axis = b.int(0, rank - 1)
        kept = [b.size(x, i) for i in range(rank) if i != axis]
        b.add(".reshape", x, [*kept, -1])
    elif kind == 2:
        order = [b.size(x, i) for i in range(rank)]
        order[b.int(0, rank - 1)] = -1
        b.add(".reshape", x, [1, *order, 1][b.int(0, 1) :])
    else:
        b.add(".reshape", x, [b.size(x, i) for i in range(rank)][::-1])


def _flatten(b: Builder) -> None:
    x = b.any()
    start = b.int(0, max(b.rank(x) - 1, 0))
    b.add("torch.flatten", x, start, b.int(start, max(b.rank(x) - 1, 0)) if b.boolean() else -1)


def _unsqueeze(b: Builder) -> None:
    x = b.any((0, 4))
    b.add("torch.unsqueeze", x, b.int(-b.rank(x) - 1, b.rank(x)))


def _squeeze(b: Builder) -> None:
    x = b.any()
    static = all(isinstance(b.size(x, axis), int) for axis in range(b.rank(x)))
    b.add("torch.squeeze", x, *(() if static and b.boolean() else (b.dim(x),)))


def _transpose(b: Builder) -> None:
    x = b.any((1, 5))
    b.add("torch.transpose", x, b.dim(x), b.dim(x))


def _permute(b: Builder) -> None:
    x = b.any()
    left = list(range(b.rank(x)))
    order = [left.pop(b.int(0, len(left) - 1)) for _ in range(len(left))]
    b.add("torch.permute", x, order)


def _movedim(b: Builder) -> None:
    x = b.any((1, 5))
    b.add("torch.movedim", x, b.dim(x), b.dim(x))


def _expand(b: Builder) -> None:
    x = b.any((0, 4))
    sizes = [
        b.int(1, 3) if b.size(x, axis) == 1 else b.choice((-1, b.size(x, axis)))
        for axis in range(b.rank(x))
    ]
    b.add(".expand", x, [b.int(1, 3), *sizes] if b.boolean() else sizes)


def _expand_as(b: Builder) -> None:
    x = b.any()
    b.add(".expand_as", x, b.like(x))


def _narrow(b: Builder) -> None:
    x = b.any((1, 5))
    dim = b.dim(x)
    least = b.least(x, dim)
    start = b.int(0, least)
    b.add("torch.narrow", x, dim, start, b.int(0, least - start))


def _select(b: Builder) -> None:
    x = b.any((1, 5))
    dim = b.dim(x)
    least = b.least(x, dim)
    b.add("torch.select", x, dim, b.choice(range(-least, least)))


def _slice(b: Builder) -> None:
    x = b.any((1, 5))
    index: list[object] = []
    for axis in range(b.int(1, b.rank(x))):
        kind = b.int(0, 5)
        bounds = (0, 1, -1, 2, -2, None, 3, 100, -100)
        if kind < 3:
            index.append((b.choice(bounds), b.choice(bounds), b.choice((None, 1, 2, 3))))
        elif kind == 3:
            index.append(None)
        elif kind == 4:
            least = b.least(x, min(axis, b.rank(x) - 1))
            index.append(b.choice(range(-least, least)))
        else:
            index.append((None, None, None))
    b.add("special.getitem", x, *index)


def _concatenate(name: str, b: Builder) -> None:
    x = b.any((0 if name == "stack" else 1, 4))
    others = [b.same(x) for _ in range(b.int(0, 2))]
    if name == "cat" and b.rarely():
        others.append(b.same(x, b.choice((torch.float32, torch.int64, torch.bool, torch.float16))))
    dims = (-b.rank(x) - 1, b.rank(x)) if name == "stack" else (-b.rank(x), b.rank(x) - 1)
    b.add(f"torch.{name}", [x, *others], b.int(*dims))


def _split(b: Builder) -> None:
    x = b.any((1, 5))
    dim = b.dim(x)
    size = b.size(x, dim)
    if not isinstance(size, int) or size == 0:
        raise NotHereError
    name = b.choice(("split", "chunk", "tensor_split", "unbind"))
    if name == "unbind":
        b.add("torch.unbind", x, dim, results=size)
    else:
        count = b.int(1, size)
        made = len(getattr(torch, name)(b.sample(x), count, dim))
        b.add(f"torch.{name}", x, count, dim, results=made)


def _flip(b: Builder) -> None:
    x = b.any((1, 5))
    b.add("torch.flip", x, b.dims(x))


def _roll(b: Builder) -> None:
    x = b.any()
    if b.rank(x) and not b.rarely():
        b.add("torch.roll", x, b.choice((1, -1, 2, 7, 0)), b.dim(x))
    else:
        b.add("torch.roll", x, b.choice((1, -2)))


def _rot90(b: Builder) -> None:
    x = b.any((2, 5))
    b.add("torch.rot90", x, b.int(-1, 4), b.choice(([0, 1], [1, 0], [-1, -2])))


def _triangle(b: Builder) -> None:
    b.add(f"torch.{b.choice(('tril', 'triu'))}", b.any((2, 5)), b.int(-3, 3))


def _diagonal(b: Builder) -> None:
    x = b.any((2, 5))
    b.add("torch.diagonal", x, b.int(-2, 2), *b.choice(((0, 1), (-1, -2), (-2, -1))))


def _diag(b: Builder) -> None:
    b.add(f"torch.{b.choice(('diag', 'diag_embed'))}", b.any((1, 2)), b.int(-2, 2))


def _pad(b: Builder) -> None:
    x = b.any((1, 5))
    count = b.int(1, min(b.rank(x), 3))
    least = min(b.least(x, -1 - axis) for axis in range(count))
    low = -1 if b.rarely() and least > 1 else 0
    sizes = [b.int(low, 2) for _ in range(2 * count)]
    b.add("F.pad", x, sizes, value=b.scalar(b.dtype(x)))


def _pad_mode(b: Builder) -> None:
    x = b.any((2, 5))
    count = b.int(1, min(b.rank(x) - 1, 3))
    mode = b.choice(("reflect", "replicate", "circular"))
    least = min(b.least(x, -1 - axis) for axis in range(count)) - (mode == "reflect")
    sizes = [b.int(0, min(max(least, 0), 3)) for _ in range(2 * count)]
    b.add("F.pad", x, sizes, mode=mode)


def _repeat(b: Builder) -> None:
    x = b.any((0, 4))
    counts = [b.choice((1, 2, 1, 3, 0 if b.rarely() else 1)) for _ in range(b.rank(x))]
    b.add(b.choice((".repeat", "torch.tile")), x, [2, *counts] if b.boolean() else counts)


def _repeat_interleave(b: Builder) -> None:
    x = b.any((1, 5))
    b.add("torch.repeat_interleave", x, b.int(1, 3), *((b.dim(x),) if b.boolean() else ()))


def _unfold(b: Builder) -> None:
    x = b.any((1, 4))
    dim = b.dim(x)
    b.add(".unfold", x, dim, b.int(1, max(b.least(x, dim), 1)), b.int(1, 3))


def _broadcast_tensors(b: Builder) -> None:
    x = b.any()
    b.add("torch.broadcast_tensors", x, b.like(x), results=2)


def _atleast(b: Builder) -> None:
    b.add(f"torch.atleast_{b.int(1, 3)}d", b.any())


def _join(b: Builder) -> None:
    x = b.any((1, 4))
    b.add(f"torch.{b.choice(('hstack', 'vstack', 'dstack'))}", [x, b.same(x)])


def _clone(b: Builder) -> None:
    b.add(f".{b.choice(('clone', 'contiguous', 'detach'))}", b.any())


def _meshgrid(b: Builder) -> None:
    x, y = b.any((1, 1)), b.any((1, 1))
    b.add("torch.meshgrid", x, y, indexing=b.choice(("ij", "xy")), results=2)


OPERATORS: dict[str, Draw] = {
    "reshape": _reshape,
    "flatten": _flatten,
    "unsqueeze": _unsqueeze,
    "squeeze": _squeeze,
    "transpose": _transpose,
    "permute": _permute,
    "movedim": _movedim,
    "expand": _expand,
    "expand_as": _expand_as,
    "narrow": _narrow,
    "select": _select,
    "slice": _slice,
    **{name: partial(_concatenate, name) for name in ("cat", "stack")},
    "split": _split,
    "flip": _flip,
    "roll": _roll,
    "rot90": _rot90,
    "triangle": _triangle,
    "diagonal": _diagonal,
    "diag": _diag,
    "pad": _pad,
    "pad_mode": _pad_mode,
    "repeat": _repeat,
    "repeat_interleave": _repeat_interleave,
    "unfold": _unfold,
    "broadcast_tensors": _broadcast_tensors,
    "atleast": _atleast,
    "join": _join,
    "clone": _clone,
    "meshgrid": _meshgrid,
}
