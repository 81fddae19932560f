"""Complex arithmetic in engines: what they hold, what stays in PyTorch, and eager's numbers."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from harness import assert_same
from torch import nn
from torch.export import Dim, ExportedProgram

import portrt
from portrt.compiler.lower import lower
from portrt.runtime.policy import policy

aten = torch.ops.aten
_AT_BORDERS = {aten.view_as_real.default, aten.view_as_complex.default}


def compiled(model: nn.Module, *inputs: Any, **options: Any) -> ExportedProgram:
    return portrt.compile(
        model.eval(),
        inputs=inputs,
        engines=options.pop("engines", "onnxruntime"),
        min_block_size=1,
        cache_dir="off",
        output_format="exported_program",
        **options,
    )


def module(function: Callable[..., Any]) -> nn.Module:
    class Function(nn.Module):
        def forward(self, *args: torch.Tensor) -> Any:
            return function(*args)

    return Function()


def in_pytorch(program: ExportedProgram) -> set[Any]:
    """The operators outside of engines."""
    targets = {n.target for n in program.graph.nodes if isinstance(n.target, torch._ops.OpOverload)}
    return targets - {torch.ops.portrt.execute_engine.default, aten.sym_size.int}


def assert_right(program: ExportedProgram, model: nn.Module, *inputs: torch.Tensor) -> None:
    with torch.no_grad():
        want = model(*inputs)
        loaded = program.module()
        assert_same(loaded(*inputs), want, 1e-4, 1e-5)
        with policy(engines=()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it runs in PyTorch
            assert_same(loaded(*inputs), want, 1e-4, 1e-5)


def complex_numbers(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.complex64)


def test_complex_inputs_and_outputs_are_viewed_as_real_ones_in_pytorch() -> None:
    model = module(lambda x, y: ((x * y).sum(-1), x.conj() - y.real))
    x, y = complex_numbers(3, 4), complex_numbers(3, 4)

    program = compiled(model, x, y)

    assert in_pytorch(program) == _AT_BORDERS
    assert_right(program, model, x, y)


class Turned(nn.Module):
    """Multiplies by weights, one of them under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(complex_numbers(4, 4))
        self.tied = self.weight
        self.register_buffer("phase", torch.polar(torch.ones(4), torch.randn(4)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = torch.view_as_complex(x)
        return torch.view_as_real((z * self.phase) @ self.weight + z @ self.tied.mT)


def test_complex_weights_are_in_the_engine_and_the_model_keeps_its_own() -> None:
    model = Turned()
    before = model.weight.detach().clone()
    x = torch.randn(3, 4, 2)

    program = compiled(model, x)

    assert in_pytorch(program) == set()
    assert not [name for name in program.state_dict if "weight" in name or "phase" in name]
    assert_right(program, model, x)
    assert torch.equal(model.weight, before)


class Summed(nn.Module):
    """Keeps a complex sum of what it was called with."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(4, dtype=torch.complex64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.total.add_(torch.view_as_complex(x) * 2j)
        return torch.view_as_real(self.total * self.total)


def test_a_complex_buffer_that_calls_change_stays_complex() -> None:
    model, x = Summed(), torch.randn(4, 2)
    program = compiled(model, x)
    loaded = program.module()

    for _ in range(3):
        assert_same(loaded(x), model(x), 1e-4, 1e-5)
    assert loaded.total.dtype == torch.complex64


def test_an_operator_without_a_rule_stays_complex_in_pytorch() -> None:
    model = module(lambda x: torch.view_as_real(torch.view_as_complex(x * 2).sqrt() * 1j))
    x = torch.randn(3, 4, 2)

    program = compiled(model, x)

    assert in_pytorch(program) == {*_AT_BORDERS, aten.sqrt.default}
    assert_right(program, model, x)


@pytest.mark.parametrize("name", ["_fft_r2c", "_fft_c2c", "_fft_c2r"])
def test_a_transform_that_stays_in_pytorch_takes_its_complex_neighbours_along(name: str) -> None:
    model = module(lambda x: torch.fft.irfft2(torch.fft.rfft2(x * 2) * 1j) + 1)
    x = torch.randn(3, 4, 8)

    program = compiled(model, x, torch_executed_ops={f"aten.{name}"})

    transform = getattr(aten, name).default
    assert transform in in_pytorch(program) <= {*_AT_BORDERS, transform}
    assert_right(program, model, x)


@pytest.mark.parametrize("length", [5, 441, 1024, 1447, 1448, 4096, 4410, 16001])
def test_transforms_are_as_exact_as_their_dtype(length: int) -> None:
    """numpy in float64 is the oracle. Also lengths at which ONNX Runtime's own loses digits."""
    x = torch.randn(2, length)
    model = module(lambda x: (torch.view_as_real(torch.fft.rfft(x)), torch.fft.ifft(x).real))

    program = compiled(model, x)

    assert in_pytorch(program) == set()
    forward, back = program.module()(x)
    exact = np.fft.rfft(x.double().numpy())
    error = np.abs(torch.view_as_complex(forward).numpy() - exact).max() / np.abs(exact).max()
    assert error < 2e-6
    exact = np.fft.ifft(x.double().numpy()).real
    assert np.abs(back.numpy() - exact).max() / np.abs(exact).max() < 2e-6


def test_lengths_may_vary() -> None:
    model = module(lambda x: torch.fft.irfft(torch.fft.rfft(x) * 1j, n=x.shape[-1]))
    x = portrt.Input(min_shape=(2, 4), opt_shape=(3, 20), max_shape=(3, 2000))

    program = compiled(model, x)

    assert in_pytorch(program) == set()
    for length in (4, 5, 64, 1999, 2000):
        assert_right(program, model, torch.randn(3, length))


def test_a_block_after_a_transform_in_pytorch_runs_from_its_source() -> None:
    """Its input has the size n // 2 + 1, which torch itself refuses to check."""
    model = module(lambda x: torch.fft.rfft(x).abs() * 2)
    x = portrt.Input(min_shape=(2, 4), opt_shape=(3, 20), max_shape=(3, 2000))

    program = compiled(model, x, torch_executed_ops={"aten._fft_r2c"})

    for length in (4, 5, 2000):
        assert_right(program, model, torch.randn(3, length))


def test_lowering_leaves_no_complex_tensor_but_around_transforms() -> None:
    model = module(lambda x: torch.fft.irfft(torch.fft.rfft(x) / (2 + 1j)))
    dims = (({0: Dim("rows", min=2, max=8)},),)
    lowered = lower(torch.export.export(model, (torch.randn(3, 8),), dynamic_shapes=dims))

    values = {n.target: n.meta["val"] for n in lowered.graph.nodes if n.op == "call_function"}
    found = {t for t, v in values.items() if isinstance(v, torch.Tensor) and v.is_complex()}
    assert found == {aten._fft_r2c.default, aten.view_as_complex.default}


@pytest.mark.parametrize(
    ("model", "x", "reason"),
    [
        (lambda x: torch.fft.rfft(x).abs(), (2, 3000), "this is one of length 3000"),
        (lambda x: torch.fft.fft(x).abs(), (2, 1025), "this is one of length 1025"),
        (lambda x: torch.fft.rfft(x, dim=-1).abs(), "varies", "of dynamic length"),
    ],
    ids=["one side", "both sides", "varying"],
)
def test_tensorrt_rtx_leaves_long_transforms_to_pytorch(
    model: Any, x: Any, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    varying = portrt.Input(min_shape=(2, 4), opt_shape=(2, 20), max_shape=(2, 40))
    given = varying if x == "varies" else torch.randn(*x)

    compiled(module(model), given, engines="tensorrt_rtx", dryrun=True)

    assert reason in capsys.readouterr().out


def test_transforms_stay_in_float32_in_lower_precision() -> None:
    model = module(lambda x: torch.fft.irfft(torch.fft.rfft(x)))
    x = torch.randn(4, 400)

    program = compiled(model, x, precision="fp16")

    with torch.no_grad():
        assert_same(program.module()(x), model(x), 1e-5, 1e-5)


def test_a_conjugated_view_is_refused_in_words_or_right() -> None:
    model = module(lambda x: torch.view_as_real(x * 2j))
    x = complex_numbers(3)
    program = compiled(model, x)

    with torch.no_grad():
        try:
            found = program.module()(x.conj())
        except RuntimeError as err:
            assert "resolve_conj" in str(err)
        else:
            assert_same(found, model(x.conj()), 1e-6, 1e-6)
