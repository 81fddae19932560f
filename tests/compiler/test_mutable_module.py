"""A model that is compiled when it is called follows what is done to it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import portrt
from portrt.compiler import mutable_module
from portrt.errors import LoadError, SettingsError

OPTIONS: dict[str, Any] = {"engines": ["onnxruntime"], "min_block_size": 1}


class Net(nn.Module):
    """Takes a keyword, returns a dict, and has attributes that are no tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.config = {"width": 8}

    @property
    def dtype(self) -> torch.dtype:
        return self.first.weight.dtype

    def forward(self, x: torch.Tensor, *, scale: torch.Tensor | None = None) -> dict[str, Any]:
        y = self.first(x).relu()
        return {"y": y if scale is None else y * scale}


@pytest.fixture
def compiles(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The dynamic shapes of each compilation."""
    found: list[Any] = []
    real = mutable_module.compile_model

    def counted(*args: Any, **kwargs: Any) -> Any:
        found.append(kwargs["dynamic_shapes"])
        return real(*args, **kwargs)

    monkeypatch.setattr(mutable_module, "compile_model", counted)
    return found


def assert_follows(module: portrt.MutableModule, model: nn.Module, *args: Any, **kw: Any) -> None:
    with torch.no_grad():
        found, wanted = module(*args, **kw), model(*args, **kw)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_weights_sizes_and_arguments_are_followed(compiles: list[Any]) -> None:
    model = Net().eval()
    module = portrt.MutableModule(model, **OPTIONS)
    x = torch.randn(3, 8)
    for _ in range(2):
        assert_follows(module, model, x)
    module.load_state_dict(Net().state_dict())
    assert_follows(module, model, x)
    with torch.no_grad():
        model.first.weight.mul_(-2)
    assert_follows(module, model, x)
    model.first.bias = nn.Parameter(torch.randn(8))
    assert_follows(module, model, x)
    model.first.weight.data += 1  # no version counts it
    module.refresh_weights()
    assert_follows(module, model, x)
    assert compiles == [None]
    for size in (5, 3, 7, 9):  # the first of them makes the size dynamic
        assert_follows(module, model, torch.randn(size, 8))
    assert len(compiles) == 2
    assert_follows(module, model, x, scale=torch.ones(1))
    assert len(compiles) == 3
    with torch.no_grad():
        model.first.weight.mul_(3)
    assert_follows(module, model, x, scale=torch.ones(1))
    assert_follows(module, model, torch.randn(6, 8))
    assert len(compiles) == 3
    model.double()
    assert_follows(module, model, x.double())
    assert len(compiles) == 4


def test_it_takes_the_place_of_the_model() -> None:
    pipe = nn.Module()
    pipe.unet = Net().eval()
    model = pipe.unet
    names = list(pipe.state_dict())
    pipe.unet = portrt.MutableModule(pipe.unet, **OPTIONS)
    assert list(pipe.state_dict()) == names
    assert pipe.unet.config is model.config
    assert pipe.unet.dtype is torch.float32
    assert pipe.unet.first is model.first
    assert list(pipe.unet.parameters()) == list(model.parameters())
    with pytest.raises(AttributeError, match="nothing"):
        _ = pipe.unet.nothing
    pipe.double()
    assert pipe.unet.dtype is torch.float64
    pipe.train()
    assert model.training
    x = torch.randn(2, 8, dtype=torch.float64, requires_grad=True)
    pipe.unet(x)["y"].sum().backward()  # in PyTorch
    assert x.grad is not None
    pipe.eval()
    assert not model.training
    assert_follows(pipe.unet, model, x.detach())


def test_programs_are_saved_and_read_without_code(tmp_path: Path, compiles: list[Any]) -> None:
    model = Net().eval()
    module = portrt.MutableModule(model, **OPTIONS)
    x = torch.randn(3, 8)
    assert_follows(module, model, x)
    module.save(tmp_path / "net")
    assert [path.name for path in (tmp_path / "net").iterdir()] == ["program_0.pt2"]
    other = Net().eval()
    loaded = portrt.MutableModule.load(tmp_path / "net", other, **OPTIONS)
    assert_follows(loaded, other, x)
    assert len(compiles) == 1
    with pytest.raises(LoadError, match="has no programs"):
        portrt.MutableModule.load(tmp_path, other)


def test_what_cannot_be_wrapped_is_refused() -> None:
    model = Net().eval()
    with pytest.raises(SettingsError, match="has no option"):
        portrt.MutableModule(model, engine="onnxruntime")
    wrapped = portrt.MutableModule(model, **OPTIONS)
    with pytest.raises(SettingsError, match="was given a MutableModule"):
        portrt.MutableModule(wrapped)
    assert copy.copy(model.config) == wrapped.config
