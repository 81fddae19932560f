"""Reductions, running sums, order."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from fuzz.builder import Builder
from fuzz.graph import Ref
from fuzz.values import ALL, FLOATS, NUMBERS, SIGNED

Draw = Callable[[Builder], None]


def _dtype(b: Builder, x: Ref) -> dict[str, Any]:
    """Floats stay floats: infinities have no integer."""
    dtypes = FLOATS if b.dtype(x) in FLOATS else (*FLOATS, *SIGNED)
    return {"dtype": b.choice(dtypes)} if b.rarely() else {}


def _reduce(name: str, dtypes: Any, b: Builder) -> None:
    """Over all dimensions, one or several."""
    x = b.value(dtypes)
    given = _dtype(b, x) if name in ("sum", "mean", "nansum", "nanmean") else {}
    kind = b.int(0, 2)
    if kind == 0:
        b.add(f"torch.{name}", x, **given)
    elif kind == 1:
        b.add(f"torch.{name}", x, b.dim(x), keepdim=b.boolean(), **given)
    else:
        b.add(f"torch.{name}", x, b.dims(x, 0 if b.rarely() else 1), keepdim=b.boolean(), **given)


def _one_dim(name: str, dtypes: Any, b: Builder) -> None:
    """Over all dimensions or one."""
    x = b.value(dtypes)
    given = _dtype(b, x) if name == "prod" else {}
    if b.boolean():
        b.add(f"torch.{name}", x, **given)
    else:
        b.add(f"torch.{name}", x, b.dim(x), keepdim=b.boolean(), **given)


def _with_index(name: str, dtypes: Any, b: Builder) -> None:
    x = b.value(dtypes)
    b.add(f"torch.{name}", x, b.dim(x), keepdim=b.boolean(), results=2)


def _extreme(name: str, b: Builder) -> None:
    b.add(f"torch.{name}", b.any())


def _variance(name: str, b: Builder) -> None:
    x = b.float()
    given = {"correction": b.choice((1, 0, 2))} if b.boolean() else {}
    dim = None if b.rarely() else b.dims(x)
    results = 2 if name.endswith("_mean") else 1
    b.add(f"torch.{name}", x, dim, keepdim=b.boolean(), results=results, **given)


def _norm(b: Builder) -> None:
    x = b.float()
    p = b.choice((2, 1, float("inf"), -float("inf"), 0, 3, 0.5))
    if b.boolean():
        b.add("torch.norm", x, p, b.dims(x), keepdim=b.boolean())
    else:
        b.add("torch.norm", x, p)


def _scan(name: str, dtypes: Any, b: Builder) -> None:
    x = b.value(dtypes)
    b.add(f"torch.{name}", x, b.dim(x), **(_dtype(b, x) if name in ("cumsum", "cumprod") else {}))


def _scan_with_index(name: str, b: Builder) -> None:
    x = b.any()
    b.add(f"torch.{name}", x, b.dim(x), results=2)


def _sort(b: Builder) -> None:
    x = b.any()
    given = {"stable": True} if b.boolean() else {}
    b.add("torch.sort", x, dim=b.dim(x), descending=b.boolean(), results=2, **given)


def _argsort(b: Builder) -> None:
    x = b.any()
    b.add("torch.argsort", x, dim=b.dim(x), descending=b.boolean(), stable=True)


def _topk(b: Builder) -> None:
    x = b.number((1, 5))
    dim = b.dim(x)
    k = b.int(0, b.least(x, dim))
    b.add("torch.topk", x, k, dim, b.boolean(), results=2)


def _logsumexp(b: Builder) -> None:
    x = b.float()
    b.add("torch.logsumexp", x, b.dims(x), keepdim=b.boolean())


def _count(b: Builder) -> None:
    x = b.any()
    b.add("torch.count_nonzero", x, *(() if b.boolean() else (b.dim(x),)))


def _aminmax(b: Builder) -> None:
    x = b.number((1, 5))
    b.add("torch.aminmax", x, dim=b.dim(x), keepdim=b.boolean(), results=2)


def _diff(b: Builder) -> None:
    x = b.any((1, 5))
    b.add("torch.diff", x, dim=b.dim(x))


def _softmax(b: Builder) -> None:
    x = b.float()
    name = b.choice(("softmax", "log_softmax", "softmin"))
    dtype = {"dtype": b.choice(FLOATS)} if b.rarely() else {}
    b.add(f"F.{name}", x, dim=b.dim(x), **dtype)


OPERATORS: dict[str, Draw] = {
    **{name: partial(_reduce, name, ALL) for name in ("sum", "any", "all")},
    **{name: partial(_reduce, name, FLOATS) for name in ("mean", "nansum", "nanmean")},
    **{name: partial(_reduce, name, NUMBERS) for name in ("amax", "amin")},
    **{name: partial(_one_dim, name, ALL) for name in ("prod",)},
    **{name: partial(_one_dim, name, NUMBERS) for name in ("argmax", "argmin")},
    **{f"{n}_dim": partial(_with_index, n, ALL) for n in ("max", "min")},
    **{f"{n}_dim": partial(_with_index, n, NUMBERS) for n in ("median", "nanmedian", "mode")},
    **{name: partial(_extreme, name) for name in ("max", "min")},
    **{n: partial(_variance, n) for n in ("var", "std", "var_mean", "std_mean")},
    **{name: partial(_scan, name, ALL) for name in ("cumsum", "cumprod")},
    "logcumsumexp": partial(_scan, "logcumsumexp", FLOATS),
    **{name: partial(_scan_with_index, name) for name in ("cummax", "cummin")},
    "norm": _norm,
    "sort": _sort,
    "argsort": _argsort,
    "topk": _topk,
    "logsumexp": _logsumexp,
    "count_nonzero": _count,
    "aminmax": _aminmax,
    "diff": _diff,
    "softmax": _softmax,
}
