"""Sources recorded as CUDA graphs: the numbers of eager, at any sizes, addresses and streams."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from programs import in_threads
from torch import nn
from torch.export import Dim

import portrt
from portrt.engines.cuda.graphed_session import GraphedSession

BATCH = Dim("batch", min=0, max=64)


class Two(nn.Module):
    """Two inputs and several outputs, one of them of the other's memory."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv1d(8, 16, 3, padding=1)
        self.linear = nn.Linear(32, 8)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        h = torch.relu(self.conv(x)) * y
        made = self.linear(h)
        return made, made.transpose(1, 2), h.sum(-1)


class Counted(nn.Module):
    """A size that depends on data: nothing that a graph can have."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.nonzero(x > y), x + y


def inputs(batch: int, seed: int = 0) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)  # of the CPU: the GPU's cannot be used in a capture
    return [torch.randn(batch, size, 32, generator=rng).cuda() for size in (8, 1)]


def program(model: nn.Module, folder: Path) -> Any:
    """A program whose only engine takes CPU tensors, saved and loaded."""
    sample = [item.cpu() for item in inputs(3)]
    made = portrt.compile(
        model, inputs=sample, dynamic_shapes=({0: BATCH}, {0: BATCH}), engines="onnxruntime"
    )
    portrt.save(made, folder / "model.pt2")
    return portrt.load(folder / "model.pt2", output_format="module")


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return Two().eval().cuda()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return program(Two().eval(), tmp_path_factory.mktemp("two"))


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[GraphedSession]:
    """The sessions that recorded."""
    found: list[GraphedSession] = []
    real = GraphedSession._record

    def noted(self: GraphedSession, *args: Any) -> Any:
        found.append(self)
        return real(self, *args)

    monkeypatch.setattr(GraphedSession, "_record", noted)
    return found


def equal(found: Any, wanted: Any) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)


pytestmark = pytest.mark.filterwarnings("ignore::portrt.runtime.select.FallbackWarning")


def test_numbers_at_several_sizes(
    two: Any, model: nn.Module, sessions: list[GraphedSession]
) -> None:
    kept = []
    with torch.no_grad(), portrt.runtime.cuda_graphs(most=4):
        for seed in range(4):
            for batch in (1, 3, 64, 0):
                given = inputs(batch, seed)
                found, wanted = two(*given), model(*given)
                equal(found, wanted)
                kept.append((found, [item.clone() for item in found]))
        strided = [item.transpose(1, 2).contiguous().transpose(1, 2) for item in inputs(3, 9)]
        equal(two(*strided), model(*strided))
    assert len(sessions) == 3  # a call of batch 0 has nothing to record
    assert sessions[0].recorded == 3
    for found, before in kept:  # later calls do not write results of earlier ones
        torch.testing.assert_close(list(found), before, rtol=0, atol=0)


def test_streams_have_graphs_of_their_own(two: Any, model: nn.Module) -> None:
    streams = [torch.cuda.Stream() for _ in range(3)]
    with torch.no_grad(), portrt.runtime.cuda_graphs():
        for seed in range(4):
            made = []
            for stream in streams:
                given = inputs(5, seed)
                stream.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(stream):
                    made.append((two(*given), given))
            torch.cuda.synchronize()
            for found, given in made:
                equal(found, model(*given))


def test_threads(two: Any, model: nn.Module) -> None:
    def work(number: int) -> None:
        with torch.no_grad(), portrt.runtime.cuda_graphs(), torch.cuda.stream(torch.cuda.Stream()):
            for seed in range(20):
                given = inputs(number % 2 + 7, seed)
                equal(two(*given), model(*given))

    in_threads(4, work)


def test_what_waits_for_the_gpu_is_not_recorded(
    tmp_path: Path, sessions: list[GraphedSession], caplog: pytest.LogCaptureFixture
) -> None:
    made = program(Counted(), tmp_path)
    with portrt.runtime.cuda_graphs(), caplog.at_level(logging.WARNING):
        for seed in range(4):
            given = inputs(3, seed)
            torch.testing.assert_close(list(made(*given)), list(Counted()(*given)))
    assert not any(session.recorded for session in sessions)
