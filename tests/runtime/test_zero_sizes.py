"""Sizes of 0 that ONNX Runtime does not take: the source runs such calls, or an error says why."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import tiny
import torch
from models import lambda_module
from torch import Tensor, nn
from torch.export import Dim

import portrt
from portrt.errors import OutOfProfileError, PackageError
from portrt.runtime import policy
from portrt.runtime.select import FallbackWarning

F = torch.nn.functional


class Recurrent(nn.Module):
    """Both layers; their results have no elements for an empty batch, or an empty sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.gru = nn.LSTM(4, 3), nn.GRU(4, 3, bidirectional=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.lstm(x)[0], self.gru(x)[0]


class Others(nn.Module):
    def forward(self, q: Tensor, k: Tensor) -> list[Tensor]:
        return [
            F.scaled_dot_product_attention(q, k, k),
            k.mean(2),
            k.var(2),
            k.var(),
            k.std(correction=0),
            *torch.std_mean(k, None, correction=2),
            q.cumprod(2),
            F.group_norm(q, 2),
            q.sum(2),
            torch.cat([k, k], 2)[:, :, 1:].mean(2),
        ]


class Raising(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.amax(0) + 1


def compiled(model: nn.Module, inputs: list[Tensor], dims: Any) -> Any:
    return portrt.compile(
        model.eval(),
        inputs=inputs,
        dynamic_shapes=dims,
        engines="onnxruntime",
        min_block_size=1,
        output_format="exported_program",
        require_full_compilation=True,
    )


T, S, B = (Dim(name, min=0, max=16) for name in "tsb")


@pytest.fixture(scope="module")
def recurrent() -> tuple[Recurrent, Any]:
    model = Recurrent()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, about exports of layers without a state
        return model, compiled(model, [torch.randn(5, 3, 4)], ({0: T, 1: B},))


@pytest.mark.parametrize("shape", [(5, 3, 4), (5, 0, 4), (1, 1, 4)])
def test_recurrent_layers(shape: tuple[int, ...], recurrent: tuple[Recurrent, Any]) -> None:
    model, program = recurrent
    x = torch.randn(shape)

    expected = pytest.warns(FallbackWarning, match="a size of 0")
    with torch.no_grad(), expected if 0 in shape else nullcontext():
        torch.testing.assert_close(program.module()(x), model(x))


def test_without_its_source_a_call_is_an_error(recurrent: tuple[Recurrent, Any]) -> None:
    _, program = recurrent

    with (
        policy(fallback="error"),
        pytest.raises(OutOfProfileError, match=r"\(5, 0, 4\)") as caught,
    ):
        program.module()(torch.zeros(5, 0, 4))
    assert "fallback='eager'" in str(caught.value)


def test_an_engine_of_an_older_file_is_not_called_without_elements(
    recurrent: tuple[Recurrent, Any],
) -> None:
    model, program = recurrent
    call = tiny.call_of(program)
    old = call.edited(lambda entry: entry["engines"][0]["requires"].pop("nonzero_sizes"))

    x = torch.zeros(5, 0, 4)
    with torch.no_grad(), pytest.warns(FallbackWarning, match="a size of 0"):
        torch.testing.assert_close(tuple(old(x)), model(x))


def test_sizes_of_a_file_are_checked(recurrent: tuple[Recurrent, Any]) -> None:
    call = tiny.call_of(recurrent[1])
    wrong = call.edited(
        lambda entry: entry["engines"][0]["requires"].update(nonzero_sizes=[["dim", 9, 0]])
    )

    with pytest.raises(PackageError, match="dim"):
        wrong(torch.zeros(5, 3, 4))


@pytest.mark.filterwarnings("ignore:block_0 runs in PyTorch")
@pytest.mark.filterwarnings("ignore:var", "ignore:std")
def test_others_give_what_eager_gives() -> None:
    shapes = [(2, 4, 5, 8), (2, 4, 6, 8)]
    program = compiled(Others(), [torch.randn(s) for s in shapes], ({0: B, 2: T}, {0: B, 2: S}))
    module = program.module()

    for queries, keys, batch in ((5, 6, 2), (0, 6, 2), (5, 0, 2), (1, 1, 1), (5, 6, 0)):
        q, k = torch.randn(batch, 4, queries, 8), torch.randn(batch, 4, keys, 8)
        torch.testing.assert_close(
            module(q, k), Others()(q, k), equal_nan=True, rtol=1e-4, atol=1e-5
        )


# Each in a program of its own: what one operator cannot do without elements, the block does not do.
ALONE: dict[str, Callable[[Tensor], Tensor]] = {
    "prefixes of one tensor": (
        lambda x: x.cumprod(1) + x.cumprod(2) + x.logcumsumexp(1) + x.logcumsumexp(2)
    ),
    "instance_norm of no images": F.instance_norm,
    **{
        f"{mode} padding": lambda x, mode=mode: F.pad(x, [1, 1], mode=mode)
        for mode in ("circular", "reflect", "replicate")
    },
    **{
        loss.__name__: lambda x, loss=loss: loss(x, x.cos())
        for loss in (F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss, F.soft_margin_loss)
    },
    "cross_entropy": lambda x: F.cross_entropy(x, x[:, 0].long()),
    "binary_cross_entropy": lambda x: F.binary_cross_entropy(x, x),
}


@pytest.mark.filterwarnings("ignore:block_0 runs in PyTorch")
@pytest.mark.parametrize("name", ALONE)
def test_alone(name: str) -> None:
    function = ALONE[name]
    program = compiled(lambda_module(function)(), [torch.rand(2, 3, 4)], ({0: B},))

    for size in (0, 2, 5):
        x = torch.rand(size, 3, 4)
        torch.testing.assert_close(program.module()(x), function(x), equal_nan=True)


@pytest.mark.parametrize("axis", [0, 1])
def test_prefixes_of_as_many_rows_as_a_mask_has(axis: int) -> None:
    program = portrt.compile(
        lambda_module(lambda x, mask: x[mask].cumprod(axis) * 2)(),
        inputs=[torch.rand(3, 2), torch.tensor([True, False, True])],
        engines="onnxruntime",
        min_block_size=1,
        output_format="exported_program",
    )
    x = torch.rand(3, 2)
    for mask in (torch.zeros(3).bool(), torch.ones(3).bool()):
        torch.testing.assert_close(program.module()(x, mask), x[mask].cumprod(axis) * 2)


@pytest.mark.filterwarnings("ignore:block_0 runs in PyTorch")
def test_what_eager_refuses_is_an_error() -> None:
    module = compiled(Raising(), [torch.randn(4, 3)], ({0: T},)).module()

    torch.testing.assert_close(module(torch.ones(1, 3)), torch.full((3,), 2.0))
    with pytest.raises(IndexError):
        Raising()(torch.zeros(0, 3))
    with pytest.raises(portrt.PortrtError):
        module(torch.zeros(0, 3))


def test_the_usual_range_needs_no_check() -> None:
    program = compiled(Raising(), [torch.randn(4, 3)], ({0: Dim("n", min=1, max=8)},))

    assert tiny.call_of(program).engine("onnxruntime")["requires"]["nonzero_sizes"] == []


class Reshaped(nn.Module):
    """Sizes that another place of the input has, as reshape, view and flatten."""

    def forward(self, x: Tensor) -> list[Tensor]:
        y = x * 2
        return [
            y.reshape([4, x.shape[1], x.shape[0]]) + 1,
            y.reshape(2, x.shape[1], 2, x.shape[0]) * 3,
            y.reshape(x.shape[0] * x.shape[1], 2, 2).sum(2),
            y.flatten(0, 1) - 1,
        ]


@pytest.mark.parametrize("numerics", ["exact", "fast"])
def test_computed_sizes_of_a_reshape(numerics: str) -> None:
    """A 0 in ONNX's Reshape is the size of the input at that place."""
    dims = ({0: Dim("a", min=0, max=9), 1: Dim("b", min=0, max=9)},)
    module = portrt.compile(
        Reshaped().eval(),
        inputs=[torch.ones(2, 3, 4)],
        dynamic_shapes=dims,
        engines="onnxruntime",
        numerics=numerics,
        fallback="error",
        require_full_compilation=True,
    )
    for shape in ((0, 3, 4), (3, 0, 4), (0, 0, 4), (2, 3, 4), (9, 1, 4)):
        x = torch.randn(shape)
        for found, wanted in zip(module(x), Reshaped()(x), strict=True):
            torch.testing.assert_close(found, wanted, rtol=0, atol=0)
