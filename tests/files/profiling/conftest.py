"""Compiled files to profile."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.export import ExportedProgram

import portrt


class Encoder(nn.Module):
    """Attention, norms and a convolution, and a `nonzero` that stays in PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, activation="gelu")
        self.layer = layer
        self.conv = nn.Conv2d(1, 16, 3, padding=1)
        self.conv_2 = nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        image = torch.relu(self.conv(self.layer(x).unsqueeze(1)))
        image = torch.relu(self.conv_2(image) + image)
        count = torch.nonzero(image.sum((1, 2, 3)) > -1e9).shape[0]
        return self.head(image.mean((2, 3))) + count


class Wide(nn.Module):
    """Three layers, of which the second does more than 60 times the work of the others."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Linear(16, 2048)
        self.huge = nn.Linear(2048, 2048)
        self.after = nn.Linear(2048, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.after(torch.relu(self.huge(torch.relu(self.before(x)))))


def save(model: nn.Module, spec: portrt.Input, path: Path) -> Path:
    program = portrt.compile(
        model.eval(),
        inputs=[spec],
        engines="onnxruntime",
        torch_executed_ops=["aten.nonzero"],
        output_format="exported_program",
    )
    assert isinstance(program, ExportedProgram)
    portrt.save(program, path)
    return path


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed."""
    torch.manual_seed(0)
    spec = portrt.Input(min_shape=(1, 16, 32), opt_shape=(4, 16, 32), max_shape=(8, 16, 32))
    return save(Encoder(), spec, tmp_path_factory.mktemp("encoder") / "encoder.pt2")


@pytest.fixture(scope="session")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed."""
    torch.manual_seed(0)
    return save(Wide(), portrt.Input((128, 16)), tmp_path_factory.mktemp("wide") / "wide.pt2")
