"""Example inputs of registered classes, which only pickle reads: the program works without them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import custom_ops
import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensor

import portrt
from portrt.errors import InputError
from portrt.runtime import policy


@dataclass
class Pair:
    """Two tensors."""

    left: torch.Tensor
    right: torch.Tensor


torch.export.register_dataclass(Pair, serialized_type_name="test_pickled_inputs.Pair")


class Joined(nn.Module):
    """Takes a pair and a tensor by keyword, whose sizes are related."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 4)

    def forward(self, pair: Pair, *, y: torch.Tensor) -> dict[str, torch.Tensor]:
        inner = custom_ops.shifted_relu(self.linear(pair.left + pair.right), 0.5)
        return {"sum": inner + y}


def arguments(batch: int) -> tuple[tuple[Pair], dict[str, torch.Tensor]]:
    return (Pair(torch.randn(batch, 8), torch.randn(batch, 8)),), {"y": torch.randn(batch, 4)}


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return Joined().eval()


@pytest.fixture(scope="module")
def path(model: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    args, kwargs = arguments(3)
    size = {0: torch.export.Dim("batch", min=1, max=16)}
    program = torch.export.export(
        model, args, kwargs, dynamic_shapes={"pair": [size, size], "y": size}, strict=False
    )
    compiled = portrt.compile(
        program, engines="onnxruntime", min_block_size=1, output_format="exported_program"
    )
    path = tmp_path_factory.mktemp("pickled") / "model.pt2"
    portrt.save(compiled, path)
    return path


@pytest.mark.parametrize("trust", [None, "pickle"])
@pytest.mark.parametrize("batch", [1, 3, 16])
def test_the_program_runs_with_and_without_them(
    model: nn.Module, path: Path, trust: str | None, batch: int
) -> None:
    """Also a registered operator of another library, custom_ops, is called as before."""
    args, kwargs = arguments(batch)
    for module in (
        portrt.load(path, trust=trust).module(),
        portrt.load(path, trust=trust, output_format="module"),
    ):
        torch.testing.assert_close(module(*args, **kwargs), model(*args, **kwargs))


@pytest.mark.parametrize("trust", [None, "pickle"])
def test_wrong_sizes_are_refused_with_and_without_them(path: Path, trust: str | None) -> None:
    (pair,), kwargs = arguments(3)
    module = portrt.load(path, trust=trust, output_format="module")
    with pytest.raises(InputError):
        module(Pair(pair.left, torch.ones(5, 8)), **kwargs)
    with pytest.raises(InputError):
        module(Pair(torch.ones(3, 9), pair.right), **kwargs)


def test_they_are_read_by_trust_alone(path: Path, tmp_path: Path) -> None:
    (pair,), kwargs = portrt.load(path).example_inputs
    assert type(pair) is Pair
    assert isinstance(pair.left, FakeTensor)
    assert isinstance(kwargs["y"], FakeTensor)
    with policy(trust="pickle"):
        (pair,), kwargs = portrt.load(path).example_inputs
    assert type(pair.left) is torch.Tensor
    assert kwargs["y"].shape == (3, 4)


def test_a_program_with_stand_ins_is_saved_again(
    model: nn.Module, path: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again.pt2"
    portrt.save(portrt.load(path), again)
    args, kwargs = arguments(2)
    found = portrt.load(again, output_format="module")(*args, **kwargs)
    torch.testing.assert_close(found, model(*args, **kwargs))
