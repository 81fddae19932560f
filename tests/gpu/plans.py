"""The models whose TensorRT plans the GPU tests run, with the parameter names of their weights.

Plans, weights and expected outputs are large and lie outside of the repository: the environment
variable PORTRT_TEST_PLANS names their folder. For each model it has `NAME.{fp32,fp16}.plan` (one
profile, version compatible, without a lean runtime, compute capability 9.0), `NAME.safetensors`
(weights) and `NAME.io.safetensors` (inputs by name, and `y`, what eager PyTorch gave on a CPU).
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import nn

FOLDER = "PORTRT_TEST_PLANS"
BUILDER = "PORTRT_TEST_BUILDER"


class Mlp(nn.Module):
    """(batch, 256) -> (batch, 256)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(256, 256) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x).relu()
        return x


class Residual(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.skip: nn.Module = nn.Identity()
        if stride > 1 or before != after:
            shortcut = nn.Conv2d(before, after, 1, stride, bias=False)
            self.skip = nn.Sequential(shortcut, nn.BatchNorm2d(after))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.bn1(self.conv1(x)).relu()
        return (self.bn2(self.conv2(inner)) + self.skip(x)).relu()


class ResNet(nn.Module):
    """(batch, 3, 96, 96) -> (batch, 10)."""

    def __init__(self) -> None:
        super().__init__()
        widths = (16, 32, 64, 128)
        stem = nn.Conv2d(3, 16, 7, 2, padding=3, bias=False)
        self.stem = nn.Sequential(stem, nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        blocks: list[nn.Module] = []
        before = widths[0]
        for width in widths:
            blocks += [Residual(before, width, 2 if blocks else 1), Residual(width, width, 1)]
            before = width
        self.body = nn.Sequential(*blocks)
        self.head = nn.Linear(before, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.stem(x)).mean(dim=(2, 3)))


class Encoder(nn.Module):
    """Token ids and mask, (batch, length) int64 -> unit vectors (batch, 128)."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(1000, 128), nn.Embedding(128, 128)
        sizes = {"qkv": (128, 384), "out": (128, 128), "up": (128, 512), "down": (512, 128)}
        self.layers = nn.ModuleList(
            nn.ModuleDict(
                {name: nn.Linear(*size) for name, size in sizes.items()}
                | {name: nn.LayerNorm(128) for name in ("norm1", "norm2")}
            )
            for _ in range(2)
        )

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        batch, length = ids.shape
        weight = mask.float()
        hidden = self.tokens(ids) + self.places(torch.arange(length, device=ids.device))
        bias = (weight[:, None, None, :] - 1.0) * 1e4
        for layer in self.layers:
            joined = layer["qkv"](layer["norm1"](hidden))
            query, key, value = joined.view(batch, length, 3, 4, 32).permute(2, 0, 3, 1, 4)
            scores = query @ key.transpose(-1, -2) / 32**0.5 + bias
            seen = (scores.softmax(-1) @ value).transpose(1, 2).reshape(batch, length, 128)
            hidden = hidden + layer["out"](seen)
            hidden = hidden + layer["down"](nn.functional.gelu(layer["up"](layer["norm2"](hidden))))
        total = (hidden * weight[:, :, None]).sum(1)
        mean = total / weight[:, :, None].sum(1).clamp(min=1e-6)
        return nn.functional.normalize(mean, dim=-1)


MODELS: dict[str, type[nn.Module]] = {"mlp": Mlp, "resnet": ResNet, "encoder": Encoder}
INPUTS = {"mlp": ("x",), "resnet": ("x",), "encoder": ("ids", "mask")}
# Input -> (smallest, best, largest) sizes of the one profile.
PROFILES = {
    "mlp": {"x": ((1, 256), (8, 256), (256, 256))},
    "resnet": {"x": ((1, 3, 96, 96), (8, 3, 96, 96), (32, 3, 96, 96))},
    "encoder": dict.fromkeys(("ids", "mask"), ((1, 1), (8, 32), (32, 128))),
}


def plans_folder() -> Path | None:
    """Where plans and weights are, or None."""
    folder = os.environ.get(FOLDER)
    return Path(folder) if folder and Path(folder, "mlp.fp32.plan").exists() else None


def model(name: str, folder: Path) -> nn.Module:
    """A model with its weights, in eval mode, on the CPU."""
    from safetensors.torch import load_file

    made = MODELS[name]()
    made.load_state_dict(load_file(folder / f"{name}.safetensors"), strict=False)
    return made.eval()


def sample(name: str, folder: Path) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Inputs in order, on the CPU, and what eager PyTorch made of them."""
    from safetensors.torch import load_file

    stored = load_file(folder / f"{name}.io.safetensors")
    return [stored[key] for key in INPUTS[name]], stored["y"]


def fresh(name: str, batch: int, seed: int, length: int = 32) -> list[torch.Tensor]:
    """Other inputs, of any batch and length."""
    generator = torch.Generator().manual_seed(seed)
    if name == "mlp":
        return [torch.randn(batch, 256, generator=generator)]
    if name == "resnet":
        return [torch.randn(batch, 3, 96, 96, generator=generator)]
    ids = torch.randint(0, 1000, (batch, length), generator=generator)
    mask = (torch.rand(batch, length, generator=generator) > 0.2).long()
    mask[:, 0] = 1
    return [ids, mask]
