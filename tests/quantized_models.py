"""A transformer layer, the ways in which torchao quantizes one, and what a builder gets of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from portrt.compiler.backends.tensorrt import build
from portrt.compiler.convert import WEIGHTS_LOCATION


class Layer(nn.Module):
    """Attention and a feed-forward network; [batch, tokens, 64] to the same."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(64), nn.LayerNorm(64)])
        self.query, self.key, self.value, self.out = (nn.Linear(64, 64) for _ in range(4))
        self.up, self.down = nn.Linear(64, 128), nn.Linear(128, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norms[0](x)
        heads = [
            part(y).unflatten(-1, (4, 16)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        ]
        mixed = nn.functional.scaled_dot_product_attention(*heads)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.down(nn.functional.gelu(self.up(self.norms[1](x))))


def layer() -> Layer:
    """The layer, the same each time."""
    torch.manual_seed(0)
    return Layer().eval().requires_grad_(False)


def inputs(batch: int = 2) -> torch.Tensor:
    """[batch, 5, 64]; other numbers for another batch."""
    return torch.randn(batch, 5, 64, generator=torch.Generator().manual_seed(batch))


def torchao_configs() -> dict[str, Callable[[], Any]]:
    """Name -> what `torchao.quantization.quantize_` takes."""
    from torchao import quantization as q

    int4 = {"weight_dtype": torch.int4}
    groups = {"granularity": q.PerGroup(32)}
    return {
        "int8 weights": q.Int8WeightOnlyConfig,
        "int8 weights by group": lambda: q.Int8WeightOnlyConfig(**groups),
        "int8": q.Int8DynamicActivationInt8WeightConfig,
        "int4 weights": lambda: q.IntxWeightOnlyConfig(**int4, **groups),
        "int8 with int4 weights": lambda: q.Int8DynamicActivationIntxWeightConfig(**int4),
        "float8 weights": q.Float8WeightOnlyConfig,
        "float8": q.Float8DynamicActivationFloat8WeightConfig,
    }


def difference(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Relative to the largest number."""
    return float((found - wanted).abs().max() / wanted.abs().max())


class BuilderInput:
    """The last ONNX model that was given to the builder of TensorRT, with its weights."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._build = build.build_in_process
        monkeypatch.setattr(build, "build_in_process", self._record)

    def _record(self, job: Any, data: bytes, image: torch.Tensor | None, **rest: Any) -> Any:
        self.data, self.image = data, image
        return self._build(job, data, image, **rest)

    def nodes(self) -> list[onnx.NodeProto]:
        return list(onnx.ModelProto.FromString(self.data).graph.node)

    def run(self, x: torch.Tensor, folder: Path) -> torch.Tensor:
        """By ONNX Runtime, node by node as the model is written."""
        (folder / "model.onnx").write_bytes(self.data)
        if self.image is not None:
            self.image.numpy().tofile(folder / WEIGHTS_LOCATION)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(folder / "model.onnx", options)
        (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        return torch.from_numpy(np.asarray(found))
