"""What a user reads when torch.export fails: the cause, their own line, and torch's advice."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.export import Dim

import portrt
from portrt.errors import CaptureError, LowerError, PortrtError

X = torch.ones(6, 4)
BATCH, OTHER = Dim("batch", max=64), Dim("other", max=64)


class ChoosesByData(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:
            return x * 2
        return x - 1


class CountsByData(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x * i for i in range(int(x[0, 0]))])


class Pairs(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(-1, 2, 4) * 2


class Same(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + y


class SixRows(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(6, 4)


class ReadsFile(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with open("/dev/null") as file:
            file.read()
        return x


class UsesNumpy(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(x.numpy() * 2)


class Inner(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ torch.ones(5, 5)


class FailsInside(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.ReLU(), Inner())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)


class AliasInBranch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, lambda t: t[:2], lambda t: t[:2] + 1, (x,))


def error_of(model: nn.Module, inputs: Any, **options: Any) -> CaptureError:
    with pytest.raises(CaptureError) as caught:
        portrt.compile(model.eval(), inputs=inputs, **options)
    assert caught.value.__cause__ is not None
    return caught.value


@pytest.mark.parametrize("strict", [False, True], ids=["", "strict"])
@pytest.mark.parametrize(
    ("model", "line", "words"),
    [
        (ChoosesByData, "if x.sum() > 0:", "data-dependent"),
        (CountsByData, "range(int(x[0, 0]))", "data-dependent"),
    ],
)
def test_what_export_cannot_do_is_said_with_the_users_line(
    model: type[nn.Module], line: str, words: str, strict: bool
) -> None:
    error = error_of(model(), [X], strict=strict)

    assert words in error.happened.lower()
    assert "at test_torch_error.py:" in error.happened
    assert line in error.happened
    assert "TORCH" not in str(error)
    assert "http" not in str(error)


@pytest.mark.parametrize("strict", [False, True], ids=["", "strict"])
def test_a_branch_that_returns_its_operand_is_said_to_need_a_copy(strict: bool) -> None:
    with pytest.raises(PortrtError, match="alias") as caught:
        portrt.compile(AliasInBranch(), inputs=[X], strict=strict)
    assert ".clone()" in caught.value.remedy


def test_python_that_cannot_be_traced_is_named_with_its_line_and_torchs_hint() -> None:
    error = error_of(ReadsFile(), [X], strict=True)

    assert "`open`" in error.happened
    assert 'in forward: with open("/dev/null") as file:' in error.happened
    assert "Avoid calling builtin `open`" in error.remedy


def test_an_error_that_says_no_line_has_that_of_the_traceback() -> None:
    error = error_of(UsesNumpy(), [X])

    assert "torch.from_numpy(x.numpy() * 2)" in error.happened
    inner = error_of(FailsInside(), [X])
    assert "[6, 4] X [5, 5]" in inner.happened
    assert "x @ torch.ones(5, 5)" in inner.happened


def test_a_size_that_must_be_even_is_said_and_torchs_fix_works() -> None:
    error = error_of(Pairs(), [X], dynamic_shapes=({0: BATCH},))

    assert error.happened.startswith("torch.export could not capture Pairs: Constraints violated")
    assert "% 8) == 0" in error.happened
    assert "_batch = Dim('_batch', min=1, max=32); batch = 2*_batch" in error.remedy
    dims = ({0: 2 * Dim("_batch", min=1, max=32)},)
    module = portrt.compile(Pairs(), inputs=[X], dynamic_shapes=dims, min_block_size=1)
    torch.testing.assert_close(module(X[:4]), Pairs()(X[:4]))


def test_sizes_that_must_be_equal_are_named() -> None:
    error = error_of(Same(), [X, X + 1], dynamic_shapes=({0: BATCH}, {0: OTHER}))
    assert "other = L['y'].size()[0] and batch = L['x'].size()[0] must" in error.happened
    assert "other = batch" in error.remedy


def test_a_size_that_the_model_fixes_is_named() -> None:
    error = error_of(SixRows(), [X], dynamic_shapes=({0: BATCH},))

    assert "specialized it to be a constant (6)" in error.happened
    assert "batch = 6" in error.remedy


def test_a_misspelled_name_in_dynamic_shapes_is_named() -> None:
    error = error_of(Same(), [X, X + 1], dynamic_shapes={"x": {0: BATCH}, "z": {0: BATCH}})

    assert "arg names ['x', 'y']" in error.happened
    assert "['x', 'z']" in error.happened
    assert "http" not in str(error)


def test_a_program_that_torch_cannot_decompose_is_a_lower_error() -> None:
    class TakesAsMany(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            count = int(x.sum().item())
            return x[:count] * torch.ones(count)

    with pytest.raises(LowerError, match=r"at test_torch_error.py:.* return x\[:count\]") as caught:
        portrt.compile(TakesAsMany(), inputs=[X], strict=True)
    assert caught.value.__cause__ is not None
