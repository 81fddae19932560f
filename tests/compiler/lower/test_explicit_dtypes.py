"""Dtypes that follow torch's default dtype are those of the process that captured the model."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
import torch
from torch import nn

import portrt
from portrt.compiler.building import fingerprint
from portrt.runtime import policy

N = torch.arange(1, 9)
X = torch.linspace(-1, 1, 8, dtype=torch.float32)


class Defaults(nn.Module):
    """Factories and promotions; the results are in engines and, of `rand`, in PyTorch."""

    def forward(self, n: torch.Tensor, x: torch.Tensor) -> list[torch.Tensor]:
        return [
            torch.full((8,), 0.3) * n,
            torch.ones(8) * 0.1 + n,
            torch.linspace(0, 1, 8) + n,
            torch.arange(0.5, 8) + n,
            (n + 1) / 7,
            torch.sqrt(n) + n * 0.1,
            torch.where(n > 3, 0.1, 0.7),
            torch.where(n > 3, n, 0.7),
            torch.sigmoid(n > 4),
            torch.zeros(8, dtype=torch.float16) + x.half(),
            x * 2 + torch.eye(8)[0].to(x.dtype),
            torch.rand(8) * 0,
        ]


@pytest.fixture(params=[torch.float64, torch.bfloat16], ids=str)
def default(request: pytest.FixtureRequest) -> Iterator[torch.dtype]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(before)


def assert_equal(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> None:
    for one, other in zip(found, wanted, strict=True):
        rtol = 2e-2 if one.dtype == torch.bfloat16 else 1e-12
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, rtol=rtol, atol=0)


@pytest.mark.parametrize("fallback", ["engine", "source"])
def test_a_program_keeps_the_dtypes_that_it_was_captured_with(
    fallback: str, default: torch.dtype
) -> None:
    captured = torch.export.export(Defaults(), (N, X))
    wanted = Defaults()(N, X)
    torch.set_default_dtype(torch.float32)

    program = portrt.compile(
        captured, engines="onnxruntime", min_block_size=1, output_format="exported_program"
    )
    data = io.BytesIO()
    torch.export.save(program, data)
    data.seek(0)
    module = torch.export.load(data).module()
    if fallback == "source":
        with policy(engines=(), fallback="eager"), pytest.warns(UserWarning):
            found = module(N, X)
    else:
        found = module(N, X)

    assert_equal(found, wanted)


@pytest.mark.parametrize(
    ("change", "restore"),
    [
        (
            lambda: torch.set_default_dtype(torch.float64),
            lambda: torch.set_default_dtype(torch.float32),
        ),
        (
            lambda: torch.use_deterministic_algorithms(True),
            lambda: torch.use_deterministic_algorithms(False),
        ),
        (
            lambda: torch.set_float32_matmul_precision("medium"),
            lambda: torch.set_float32_matmul_precision("highest"),
        ),
    ],
    ids=["default dtype", "deterministic", "precision of products"],
)
def test_the_state_of_the_process_is_part_of_the_keys(change: object, restore: object) -> None:
    assert callable(change)
    assert callable(restore)
    before = fingerprint.process_state()
    change()
    try:
        assert fingerprint.process_state() != before
    finally:
        restore()
    assert fingerprint.process_state() == before


def test_autocast_is_part_of_the_keys() -> None:
    before = fingerprint.process_state()
    with torch.autocast("cpu", torch.bfloat16):
        assert fingerprint.process_state() != before
