"""Tensors that are made in the graph."""

from __future__ import annotations

from collections.abc import Callable

from fuzz.builder import Builder
from fuzz.values import ALL, FLOATS, INTEGERS

Draw = Callable[[Builder], None]


def _like(b: Builder) -> None:
    x = b.any()
    name = b.choice(("zeros_like", "ones_like", "full_like"))
    fill = (b.scalar(b.dtype(x)),) if name == "full_like" else ()
    given = {"dtype": b.choice(ALL)} if b.boolean() else {}
    b.add(f"torch.{name}", x, *fill, **given)


def _filled(b: Builder) -> None:
    x = b.any()
    sizes = [b.size(x, axis) for axis in range(b.rank(x))]
    dtype = b.choice(ALL)
    name = b.choice(("zeros", "ones", "full"))
    if name == "full":
        b.add("torch.full", sizes, b.scalar(dtype), **({"dtype": dtype} if b.boolean() else {}))
    else:
        b.add(f"torch.{name}", sizes, **({"dtype": dtype} if b.boolean() else {}))


def _new(b: Builder) -> None:
    x = b.any()
    sizes = [b.size(x, axis) for axis in range(b.rank(x))]
    name = b.choice((".new_zeros", ".new_ones"))
    b.add(name, x, sizes)


def _arange(b: Builder) -> None:
    x = b.any((1, 5))
    end = b.size(x, b.dim(x))
    kind = b.int(0, 3)
    given = {"dtype": b.choice((*FLOATS, *INTEGERS))} if b.boolean() else {}
    args = [(end,), (0, end, 2), (b.choice((1.5, 0.5, 2)), 9, b.choice((1, 0.5, 3)))][min(kind, 2)]
    b.add("torch.arange", *args, **given)


def _linspace(b: Builder) -> None:
    steps = b.int(0, 7)
    given = {"dtype": b.choice((*FLOATS, *INTEGERS))} if b.boolean() else {}
    b.add("torch.linspace", b.choice((0, -1.5, 3)), b.choice((1, 10, 2.5)), steps, **given)


def _eye(b: Builder) -> None:
    x = b.any((1, 5))
    size = b.size(x, b.dim(x))
    given = {"dtype": b.choice(ALL)} if b.boolean() else {}
    b.add("torch.eye", size, *((b.int(0, 4),) if b.boolean() else ()), **given)


OPERATORS: dict[str, Draw] = {
    "like": _like,
    "filled": _filled,
    "new": _new,
    "arange": _arange,
    "linspace": _linspace,
    "eye": _eye,
}
