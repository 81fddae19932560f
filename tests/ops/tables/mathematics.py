"""torch.special, linalg, and other functions of models that are not core operators."""

from __future__ import annotations

import torch

from ops.case import FLOATS, Case, T, rows

_DOMAINS = {
    "erfinv": (-0.9, 0.9),
    "log_ndtr": (-3, 3),
    "logit": (0.1, 0.9),
    "xlogy": (0.1, 3),
    "zeta": (1.5, 3),
    "gammaln": (0.5, 4),
    "digamma": (0.5, 4),
    "i0": (-2, 2),
    "entr": (0.1, 3),
}


def _row(
    name: str,
    variant: str,
    *args: object,
    function: object,
    over: tuple[str, ...] = ("f32",),
    **options: object,
) -> list[Case]:
    return rows(name, *args, over=over, variant=variant, function=function, **options)


_NONE = "torch.onnx has no translation for it"

CASES = [
    *[
        row
        for name in (
            "erfc",
            "exp2",
            "expit",
            "ndtr",
            "sinc",
            "logit",
            "entr",
        )
        for row in _row(
            f"special.{name}",
            "plain",
            T("b,4", *_DOMAINS.get(name, (-2, 2))),
            function=getattr(torch.special, name),
        )
    ],
    *[
        row
        for name in ("erfinv", "gammaln", "digamma", "i0")
        for row in _row(
            f"special.{name}",
            "plain",
            T("b,4", *_DOMAINS[name]),
            function=getattr(torch.special, name),
            stays=_NONE,
        )
    ],
    *_row("special.xlogy", "plain", T("b,4"), T("b,4", 0.1, 3), function=torch.special.xlogy),
    *_row(
        "special.logsumexp", "plain", T("b,4"), function=lambda x: torch.special.logsumexp(x, -1)
    ),
    *_row("special.softmax", "plain", T("b,4"), function=lambda x: torch.special.softmax(x, -1)),
    *_row("logaddexp", "plain", T("b,4"), T("4"), function=torch.logaddexp),
    *_row("logcumsumexp", "plain", T("b,4"), function=lambda x: torch.logcumsumexp(x, -1)),
    *_row("cumprod", "plain", T("b,4"), function=lambda x: torch.cumprod(x, -1)),
    *_row("linalg.norm", "matrix", T("b,3,4"), function=lambda x: torch.linalg.matrix_norm(x)),
    *_row(
        "linalg.vector_norm", "2", T("b,4"), function=lambda x: torch.linalg.vector_norm(x, dim=-1)
    ),
    *_row(
        "linalg.vector_norm",
        "1",
        T("b,4"),
        function=lambda x: torch.linalg.vector_norm(x, 1, dim=-1),
    ),
    *_row(
        "linalg.vector_norm",
        "infinite",
        T("b,4"),
        function=lambda x: torch.linalg.vector_norm(x, float("inf"), dim=-1),
    ),
    *_row("linalg.det", "plain", T("b,3,3"), function=torch.linalg.det),
    *_row(
        "linalg.inv",
        "plain",
        T("b,3,3"),
        function=lambda x: torch.linalg.inv(x @ x.mT + 3 * torch.eye(3)),
    ),
    *_row(
        "linalg.solve",
        "plain",
        T("b,3,3"),
        T("b,3,2"),
        function=lambda x, y: torch.linalg.solve(x @ x.mT + 3 * torch.eye(3), y),
        stays=_NONE,
    ),
    *_row(
        "linalg.cholesky",
        "plain",
        T("b,3,3"),
        function=lambda x: torch.linalg.cholesky(x @ x.mT + 3 * torch.eye(3)),
        stays=_NONE,
    ),
    *_row("linalg.cross", "plain", T("b,3"), T("b,3"), function=torch.linalg.cross),
    *_row(
        "linalg.multi_dot",
        "plain",
        T("2,3"),
        T("3,4"),
        T("4,2"),
        function=lambda x, y, z: torch.linalg.multi_dot([x, y, z]),
    ),
    *_row("linalg.vecdot", "plain", T("b,3"), T("b,3"), function=torch.linalg.vecdot),
    *_row(
        "einsum",
        "attention",
        T("n,2,s,4"),
        T("n,2,6,4"),
        function=lambda x, y: torch.einsum("bhqd,bhkd->bhqk", x, y),
        over=("f32", "f16", "bf16"),
    ),
    *_row(
        "einsum",
        "outer",
        T("2,3"),
        T("2,4"),
        function=lambda x, y: torch.einsum("bi,bj->bij", x, y),
    ),
    *_row("matmul", "vectors", T("4"), T("4"), function=torch.matmul),
    *_row("matmul", "broadcast", T("b,2,3,4"), T("4,5"), function=torch.matmul, over=FLOATS),
    *_row(
        "baddbmm",
        "plain",
        T("b,3,5"),
        T("b,3,4"),
        T("b,4,5"),
        function=lambda c, x, y: torch.baddbmm(c, x, y, beta=0.5, alpha=2),
        over=("f32", "f16"),
    ),
    *_row("cdist", "2", T("b,4,3"), T("b,5,3"), function=torch.cdist),
    *_row("kron", "plain", T("2,3"), T("3,2"), function=torch.kron),
    *_row(
        "tril", "plain", T("b,4,4"), function=torch.tril, over=("f32", "f16", "bf16", "i64", "bool")
    ),
    *_row("triu", "diagonal", T("b,4,5"), function=lambda x: torch.triu(x, 1)),
    *_row("roll", "plain", T("b,5"), function=lambda x: torch.roll(x, 2, 1)),
    *_row("rot90", "plain", T("b,3,4"), function=lambda x: torch.rot90(x, 1, [1, 2])),
    *_row("tile", "plain", T("b,3"), function=lambda x: torch.tile(x, (2, 2))),
    *_row(
        "repeat_interleave", "number", T("b,3"), function=lambda x: torch.repeat_interleave(x, 2, 1)
    ),
    *_row(
        "bucketize",
        "plain",
        T("b,4"),
        function=lambda x: torch.bucketize(x, torch.tensor([-1.0, 0.0, 1.0])),
    ),
    *_row(
        "searchsorted",
        "plain",
        T("b,4"),
        function=lambda x: torch.searchsorted(torch.tensor([-1.0, 0.0, 1.0]), x),
    ),
    *_row(
        "take_along_dim",
        "plain",
        T("3,4"),
        T("i64:3,2", 0, 3),
        function=lambda x, i: torch.take_along_dim(x, i, 1),
    ),
    *_row(
        "masked_fill",
        "plain",
        T("b,4"),
        T("bool:b,4"),
        function=lambda x, m: x.masked_fill(m, -1e4),
        over=("f32", "f16", "bf16"),
    ),
    *_row(
        "isin", "plain", T("i64:b,4", 0, 5), function=lambda x: torch.isin(x, torch.tensor([1, 3]))
    ),
    *_row("all", "plain", T("bool:b,4"), function=lambda x: x.all(1)),
    *_row("all", "of nothing", T("bool:0,4"), function=lambda x: x.all()),
    *_row("std", "plain", T("b,4"), function=lambda x: x.std(1)),
    *_row("median", "plain", T("b,5"), function=lambda x: x.median(1)[0], stays=_NONE),
    *_row("quantile", "plain", T("b,5"), function=lambda x: torch.quantile(x, 0.25, 1)),
    *_row("lerp", "plain", T("b,4"), T("b,4"), function=lambda x, y: torch.lerp(x, y, 0.3)),
    *_row(
        "addcmul",
        "plain",
        T("b,4"),
        T("b,4"),
        T("4"),
        function=lambda x, y, z: torch.addcmul(x, y, z, value=0.5),
    ),
    *_row(
        "addcdiv",
        "plain",
        T("b,4"),
        T("b,4"),
        T("4", 1, 2),
        function=lambda x, y, z: torch.addcdiv(x, y, z, value=0.5),
    ),
    *_row("nan_to_num", "plain", T("8", special=True), function=torch.nan_to_num),
    *_row("floor_divide", "plain", T("b,4", -9, 9), function=lambda x: x // 0.7, over=("f32",)),
    *_row("frac", "plain", T("b,4"), function=torch.frac),
    *_row("hypot", "plain", T("b,4"), T("4"), function=torch.hypot),
    *_row("copysign", "plain", T("b,4"), T("4"), function=torch.copysign),
    *_row("histc", "plain", T("8"), function=lambda x: torch.histc(x, 4, -2, 2)),
    *_row(
        "count_nonzero",
        "plain",
        T("b,4", -1, 1),
        function=lambda x: torch.count_nonzero(x, 1),
        over=("i64",),
    ),
]
