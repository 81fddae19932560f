"""profile with CUDA tensors, in PyTorch: the times of nodes come from events on the stream."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from torch import nn

import portrt
from portrt import files
from portrt.engines.eager import SourceSession

CALLS = 9


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three linear layers, of which the second does most of the work."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(64, 8192), nn.ReLU(), nn.Linear(8192, 8192), nn.ReLU(), nn.Linear(8192, 64)
    ).eval()
    program = portrt.compile(
        model,
        inputs=[portrt.Input((4096, 64))],
        engines="onnxruntime",
        check="off",
        output_format="exported_program",
    )
    path = tmp_path_factory.mktemp("profile") / "a.pt2"
    portrt.save(program, path)
    return path


def test_nodes_are_timed_on_the_gpu(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = SourceSession.layer_times
    walls = []

    def timed(*args: object, **kwargs: object) -> object:
        torch.cuda.synchronize()
        started = time.perf_counter()
        result = original(*args, **kwargs)  # type: ignore[arg-type]
        torch.cuda.synchronize()
        walls.append(time.perf_counter() - started)
        return result

    monkeypatch.setattr(SourceSession, "layer_times", timed)
    found = files.profile(file, device="cuda", engine="eager", calls=CALLS)
    (block,) = found.blocks
    assert found.machine["device"] == torch.cuda.get_device_name()
    assert [layer.kind for layer in block.layers] == [
        *("aten.linear.default", "aten.relu.default", "aten.linear.default", "aten.relu.default"),
        "aten.linear.default",
    ]
    # At least five of nine calls took the median or longer: for each layer.
    assert 0 < block.layers_seconds * 5 <= walls[0]
    slowest = max(block.layers, key=lambda layer: layer.seconds)
    assert block.nodes[slowest.name].module == "2"
    # No GPU does a product of this size in float32 at a petaflop: the time is not that of a launch.
    assert slowest.seconds > 2 * 4096 * 8192 * 8192 / 1e15
    assert block.call_seconds is not None
    assert block.call_seconds > slowest.seconds / 2
