"""Complex arithmetic and Fourier transforms. Rows take and give real tensors, as engines do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ops.case import Case, T, rows

aten = torch.ops.aten


def _on_complex(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function of complex tensors as one of real tensors with a last dimension of two."""

    def call(*given: torch.Tensor) -> Any:
        found = function(*map(torch.view_as_complex, given))
        items = found if isinstance(found, (tuple, list)) else (found,)
        return tuple(torch.view_as_real(x.resolve_conj()) if x.is_complex() else x for x in items)

    return call


def _complex(
    op: str, function: Callable[..., Any], *sizes: str, variant: str = "complex", **options: Any
) -> list[Case]:
    """A row of complex tensors of these sizes, to which the two parts are added."""
    given = [T(f"{text},2" if text else "2") for text in sizes]
    name = f"aten.{op}" if "." in op else op
    return rows(name, *given, function=_on_complex(function), variant=variant, **options)


def _real(
    op: str, function: Callable[..., Any], *given: T, variant: str, **options: Any
) -> list[Case]:
    """A row of real tensors."""

    def call(*tensors: torch.Tensor) -> Any:
        found = function(*tensors)
        items = found if isinstance(found, (tuple, list)) else (found,)
        return tuple(torch.view_as_real(x.resolve_conj()) if x.is_complex() else x for x in items)

    return rows(f"aten.{op}", *given, function=call, variant=variant, **options)


_BOTH = ("f32", "f64")


def _mask(x: torch.Tensor) -> torch.Tensor:
    return torch.arange(4, device=x.device) > 1


_ELEMENTWISE = [
    *_complex("add.Tensor", lambda x, y: x + y, "b,4", "b,4", over=_BOTH),
    *_complex(
        "add.Tensor", lambda x, y: torch.add(x, y, alpha=2j), "b,4", "4", variant="complex, alpha"
    ),
    *_complex("add.Tensor", lambda x: x + (1 - 2j), "b,4", variant="complex, number"),
    *_complex("add.Tensor", lambda x: x.real + 1j, "b,4", variant="real and complex number"),
    *_complex("sub.Tensor", lambda x, y: x - y, "b,4", "4", over=_BOTH),
    *_complex("sub.Tensor", lambda x, y: x.real - y, "b,3,4", "4", variant="real less complex"),
    *_complex("rsub.Scalar", lambda x: aten.rsub.Scalar(x, 1 + 1j), "b,4"),
    *_complex("mul.Tensor", lambda x, y: x * y, "b,4", "b,4", over=_BOTH),
    *_complex("mul.Tensor", lambda x: x * 1j, "b,4", variant="complex, number"),
    *_complex("mul.Tensor", lambda x, y: x.imag * y, "b,4", "4", variant="real by complex"),
    *_complex("mul.Tensor", lambda x: x.real * 2j, "b,4", variant="real by complex number"),
    *_complex("mul.Tensor", lambda x, y: x * y, "", "b,4", variant="complex, scalar tensor"),
    *_complex("div.Tensor", lambda x, y: x / y, "b,4", "b,4", over=_BOTH),
    *_complex(
        "div.Tensor", lambda x, y: x * 1e-25 / (y * 1e25), "b,4", "b,4", variant="complex, tiny"
    ),
    *_complex("div.Tensor", lambda x, y: x.real / y, "b,4", "4", variant="real by complex"),
    *_complex("div.Tensor", lambda x: x / (3 - 2j), "b,4", variant="complex, by number"),
    *_complex("div.Tensor", lambda x: x / 3, "b,4", variant="complex, by real number"),
    *_complex("reciprocal.default", torch.reciprocal, "b,4"),
    *_complex("pow.Tensor_Scalar", lambda x: x**2, "b,4"),
    *_complex("neg.default", torch.neg, "b,4"),
    *_complex("abs.default", torch.abs, "b,4", over=_BOTH),
    *_complex("abs.default", lambda x: torch.abs(x * 1e30), "b,4", variant="complex, large"),
    *_complex(
        "abs.default", lambda x: torch.abs(x * 1e-30) * 1e30, "b,4", variant="complex, small"
    ),
    *_complex("abs.default", lambda x: torch.abs(x * 0), "b,4", variant="complex, zero"),
    *_complex("angle.default", torch.angle, "n,4", over=_BOTH, lacks=("f64",)),
    *_complex("sgn.default", torch.sgn, "b,4"),
    *_complex("sgn.default", lambda x: torch.sgn(x * 0), "b,4", variant="complex, zero"),
    *_complex("exp.default", torch.exp, "b,4"),
    *_complex("log.default", torch.log, "b,4"),
    *_complex("_conj.default", lambda x: torch.conj(x) * 1j, "b,4"),
    *_complex("_conj_physical.default", aten._conj_physical.default, "b,4"),
    *_complex("real", lambda x: aten.real.default(x) + 1, "b,4"),
    *_complex("imag", lambda x: aten.imag.default(x) + 1, "b,4"),
    *_complex("eq.Tensor", lambda x, y: x * 0 == y * 0, "b,4", "4"),
    *_complex("ne.Scalar", lambda x: aten.ne.Scalar(x * 0 + 1j, 1j), "b,4"),
    *_real("complex.default", torch.complex, T("b,4"), T("4"), variant="parts"),
    *_real("polar.default", torch.polar, T("n,4", 0, 2), T("n,4"), variant="polar"),
]

_MOVING = [
    *_complex("cat.default", lambda x, y: torch.cat([x, y.real, y]), "b,4", "3,4"),
    *_complex("stack.default", lambda x, y: torch.stack([x, y], -1), "b,4", "b,4"),
    *_complex("reshape", lambda x: x.reshape(x.shape[0], -1), "b,4,3"),
    *_complex("permute.default", lambda x: x.permute(2, 0, 1), "b,4,3"),
    *_complex("transpose.int", lambda x: x.transpose(-1, -2), "b,4,3"),
    *_complex("expand.default", lambda x: x.expand(3, -1, 4), "b,1"),
    *_complex("slice.Tensor", lambda x: x[..., 1:3], "b,4"),
    *_complex("select.int", lambda x: x[:, -1], "b,4"),
    *_complex("unsqueeze.default", lambda x: x.unsqueeze(-1), "b,4"),
    *_complex("squeeze.dim", lambda x: x.squeeze(-1), "b,1"),
    *_complex("index.Tensor", lambda x: x[:, torch.tensor([2, 0, 1, 2])], "b,4"),
    *_complex("index_select.default", lambda x: x.index_select(-1, torch.tensor([2, 0])), "b,4"),
    *_complex("flip.default", lambda x: x.flip(-1), "b,4"),
    *_complex("roll.default", lambda x: x.roll(1, -1), "b,4"),
    *_complex("split.Tensor", lambda x: x.split(2, -1), "b,4"),
    *_complex("unbind.int", lambda x: x.unbind(-1), "b,4"),
    *_complex("constant_pad_nd.default", lambda x: aten.constant_pad_nd(x, [1, 2], 2 + 1j), "b,4"),
    *_complex("where.self", lambda x, y: torch.where(_mask(x), x, y), "b,4", "4"),
    *_complex(
        "where.self", lambda x: torch.where(_mask(x), x, 0.0), "b,4", variant="complex, number"
    ),
    *_complex("masked_fill.Scalar", lambda x: x.masked_fill(_mask(x), 1j), "b,4"),
    *_complex("sum.dim_IntList", lambda x: x.sum(-1), "b,4", over=_BOTH),
    *_complex("sum.default", lambda x: x.sum(), "b,4"),
    *_complex("mean.dim", lambda x: x.mean(-1, keepdim=True), "b,4"),
    *_complex("cumsum.default", lambda x: x.cumsum(-1), "b,4"),
    *_complex("zeros_like.default", lambda x: torch.zeros_like(x) + x, "b,4"),
    *_complex("ones_like.default", lambda x: torch.ones_like(x) + x, "b,4"),
    *_complex(
        "full.default",
        lambda x: torch.full((x.shape[0], 4), 1 - 2j, dtype=torch.complex64) + x,
        "b,4",
    ),
    *_complex(
        "slice_scatter.default", lambda x, y: aten.slice_scatter(x, y, 1, 1, 3), "n,4", "n,2"
    ),
    *_complex("tril.default", torch.tril, "b,4,4"),
    *_complex("_to_copy.default", lambda x: x.real.to(torch.complex64) * x, "b,4"),
    *_complex(
        "_to_copy.default", lambda x: x.to(torch.complex128) * 1j, "b,4", variant="complex, wider"
    ),
]

_PRODUCTS = [
    *_complex("mm.default", torch.mm, "b,4", "4,3", over=_BOTH),
    *_complex("bmm.default", torch.bmm, "b,4,3", "b,3,2"),
    *_complex("matmul", torch.matmul, "b,5,4", "4,3"),
    *_complex(
        "addmm.default", lambda x, y, z: torch.addmm(x, y, z, beta=2, alpha=1j), "3", "b,4", "4,3"
    ),
    *_complex("einsum", lambda x, y: torch.einsum("bix,iox->box", x, y), "b,3,4", "3,2,4"),
    *_complex("linear", torch.nn.functional.linear, "b,4", "3,4", "3"),
    *_complex("linalg_vector_norm.default", lambda x: torch.linalg.vector_norm(x, dim=-1), "b,4"),
]

_NORMS = ("backward", "ortho", "forward")


def _spectrum(function: Callable[..., Any], **given: Any) -> Callable[..., Any]:
    return lambda x: function(x, **given)


_FOURIER = [
    *_real(
        "_fft_r2c.default",
        lambda x: aten._fft_r2c(x, [1], 0, True),
        T("b,8"),
        variant="one side",
        over=_BOTH,
    ),
    *_real(
        "_fft_r2c.default",
        lambda x: aten._fft_r2c(x, [1], 0, False),
        T("b,7"),
        variant="both sides",
    ),
    *_real(
        "_fft_r2c.default",
        lambda x: aten._fft_r2c(x, [1, 0, 2], 2, True),
        T("3,4,5"),
        variant="three dimensions",
    ),
    *_real("_fft_r2c.default", lambda x: aten._fft_r2c(x, [0], 1, True), T("6"), variant="vector"),
    *_real(
        "_fft_r2c.default",
        lambda x: aten._fft_r2c(x, [1], 0, True),
        T("3,s"),
        variant="varying length",
    ),
    *_real(
        "_fft_r2c.default",
        lambda x: aten._fft_r2c(x, [1], 0, True),
        T("b,3000"),
        variant="long",
    ),
    *_complex("_fft_c2r.default", lambda x: aten._fft_c2r(x, [1], 2, 8), "b,5", over=_BOTH),
    *_complex("_fft_c2r.default", lambda x: aten._fft_c2r(x, [1], 1, 9), "b,5", variant="odd"),
    *_complex("_fft_c2r.default", lambda x: aten._fft_c2r(x, [1], 0, 1), "b,1", variant="one"),
    *_complex(
        "_fft_c2r.default",
        lambda x: aten._fft_c2r(x, [1, 2], 2, 6),
        "b,3,4",
        variant="two dimensions",
    ),
    *_complex(
        "_fft_c2r.default", lambda x: aten._fft_c2r(x, [1], 2, 3001), "b,1501", variant="long"
    ),
    *_complex("_fft_c2c.default", lambda x: aten._fft_c2c(x, [1], 0, True), "b,8", over=_BOTH),
    *_complex(
        "_fft_c2c.default", lambda x: aten._fft_c2c(x, [1], 2, False), "3,s", variant="inverse"
    ),
    *_complex(
        "_fft_c2c.default", lambda x: aten._fft_c2c(x, [1], 1, True), "b,2048", variant="long"
    ),
    *[
        row
        for norm in _NORMS
        for name, function, sizes in (
            ("fft", torch.fft.fft, "b,7"),
            ("ifft", torch.fft.ifft, "b,8"),
            ("fft2", torch.fft.fft2, "b,4,3"),
            ("ifftn", torch.fft.ifftn, "n,4,3"),
            ("irfft", torch.fft.irfft, "b,5"),
            ("irfft2", torch.fft.irfft2, "b,4,5"),
            ("hfft", torch.fft.hfft, "b,5"),
        )
        for row in rows(
            f"fft.{name}",
            T(f"{sizes},2"),
            function=_on_complex(_spectrum(function, norm=norm)),
            variant=norm,
        )
    ],
    *[
        row
        for norm in _NORMS
        for name, function, sizes in (
            ("rfft", torch.fft.rfft, "b,7"),
            ("rfft2", torch.fft.rfft2, "b,4,8"),
            ("rfftn", torch.fft.rfftn, "n,4,6"),
            ("ihfft", torch.fft.ihfft, "b,6"),
        )
        for row in rows(
            f"fft.{name}",
            T(sizes),
            function=lambda x, function=function, norm=norm: torch.view_as_real(
                function(x, norm=norm).resolve_conj()
            ),
            variant=norm,
        )
    ],
    *[
        row
        for n in (4, 11)
        for row in (
            *rows(
                "fft.rfft",
                T("n,8"),
                function=lambda x, n=n: torch.view_as_real(torch.fft.rfft(x, n)),
                variant=f"n is {n}",
            ),
            *rows(
                "fft.irfft",
                T("n,5,2"),
                function=_on_complex(lambda x, n=n: torch.fft.irfft(x, n)),
                variant=f"n is {n}",
            ),
            *rows(
                "fft.fft",
                T("n,8"),
                function=lambda x, n=n: torch.view_as_real(torch.fft.fft(x, n)),
                variant=f"n is {n}",
            ),
        )
    ],
    *rows(
        "fft.fftshift",
        T("b,7,2"),
        function=_on_complex(lambda x: torch.fft.fftshift(x, -1)),
        variant="complex",
    ),
]


def _stft(x: torch.Tensor, **options: Any) -> torch.Tensor:
    return torch.view_as_real(torch.stft(x, 16, return_complex=True, **options))


def _window(length: int) -> torch.Tensor:
    return torch.hann_window(length) + 0.1


_SHORT_TIME = [
    *[
        row
        for variant, options in (
            ("plain", {"window": _window(16)}),
            ("no window", {"window": torch.ones(16)}),
            ("hop", {"window": _window(16), "hop_length": 5}),
            ("short window", {"window": _window(9), "win_length": 9}),
            ("not centred", {"window": _window(16), "center": False}),
            ("normalized", {"window": _window(16), "normalized": True}),
            ("both sides", {"window": _window(16), "onesided": False}),
            ("zeros around", {"window": _window(16), "pad_mode": "constant"}),
        )
        for row in rows("stft", T("b,40"), function=_spectrum(_stft, **options), variant=variant)
    ],
    *rows("stft", T("40"), function=_spectrum(_stft, window=_window(16)), variant="vector"),
    *[
        row
        for variant, sizes, options in (
            ("plain", "b,9,12", {"window": _window(16)}),
            ("hop", "b,9,12", {"window": _window(16), "hop_length": 5}),
            ("short window", "b,9,12", {"window": _window(12), "win_length": 12}),
            ("not centred", "b,9,12", {"window": _window(16), "center": False}),
            ("normalized", "b,9,12", {"window": _window(16), "normalized": True}),
            ("both sides", "b,16,12", {"window": _window(16), "onesided": False}),
            ("cut", "b,9,12", {"window": _window(16), "length": 30}),
            ("vector", "9,12", {"window": _window(16)}),
        )
        for row in rows(
            "istft",
            T(f"{sizes},2"),
            function=_on_complex(lambda x, options=options: torch.istft(x, 16, **options)),
            variant=variant,
        )
    ],
]

CASES = [*_ELEMENTWISE, *_MOVING, *_PRODUCTS, *_FOURIER, *_SHORT_TIME]
