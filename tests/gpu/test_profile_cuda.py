"""profile with CUDA tensors, in PyTorch: the times of nodes come from events on the stream."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest
import torch
from torch import nn

import portrt
from portrt import files
from portrt.engines.eager import SourceSession
from portrt.engines.node_times import WARM_UP

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
    """By the events around each of them, in the order of the graph."""
    original = SourceSession.layer_times
    elapsed: list[float] = []

    class Event(torch.cuda.Event):
        """Writes down what it tells."""

        def elapsed_time(self, end: torch.cuda.Event) -> float:
            found: float = super().elapsed_time(end)
            elapsed.append(found)
            return found

    def timed(*args: object, **kwargs: object) -> object:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.cuda, "Event", Event)
            return original(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(SourceSession, "layer_times", timed)
    found = files.profile(file, device="cuda", engine="eager", calls=CALLS)
    (block,) = found.blocks
    assert found.machine["device"] == torch.cuda.get_device_name()
    assert [layer.kind for layer in block.layers] == [
        *("aten.linear.default", "aten.relu.default", "aten.linear.default", "aten.relu.default"),
        "aten.linear.default",
    ]
    assert [block.nodes[layer.name].module for layer in block.layers] == list("01234")
    count = len(block.layers)
    assert len(elapsed) == count * (WARM_UP + CALLS)
    for place, layer in enumerate(block.layers):
        milliseconds = elapsed[count * WARM_UP + place :: count]
        assert layer.seconds == pytest.approx(statistics.median(milliseconds) / 1000)
        assert layer.seconds > 0
    assert block.call_seconds is not None
