"""Which sizes become CUDA graphs, and which are forgotten; recording itself needs a GPU."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from portrt import torch_internals
from portrt.engines.cuda.graphed_session import GraphedSession
from portrt.errors import EngineError, OutOfProfileError


@pytest.fixture
def graphed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A session that keeps two recordings, and what it did: (how, batch)."""
    did: list[tuple[str, int]] = []
    given_back: list[int] = []
    monkeypatch.setattr(torch_internals, "current_device_index", lambda: 0)
    monkeypatch.setattr(torch_internals, "current_stream_handle", lambda _: 0)
    monkeypatch.setattr(torch_internals, "is_capturing", lambda: False)

    def run(inputs: Any, _: Any) -> list[Any]:
        did.append(("run", len(inputs[0])))
        return []

    device = torch.device("cpu", 0)

    def never(*_: Any) -> Any:
        raise AssertionError("replaced below")

    session: Any = SimpleNamespace(run=run)
    made = GraphedSession(session, never, device, name="it", max_recordings=2)

    def record(_: int, inputs: Any, __: Any) -> Any:
        did.append(("record", len(inputs[0])))
        return SimpleNamespace(replay=replay, give_back=lambda: given_back.append(len(inputs[0])))

    def replay(inputs: Any) -> list[Any]:
        did.append(("replay", len(inputs[0])))
        return []

    monkeypatch.setattr(made, "_record", record)

    def call(batch: int) -> list[tuple[str, int]]:
        did.clear()
        made.run([torch.empty(batch)], [(batch,)])
        return list(did)

    return SimpleNamespace(call=call, session=made, given_back=given_back)


def test_the_second_call_records_and_later_ones_replay(graphed: Any) -> None:
    assert graphed.call(1) == [("run", 1)]
    assert graphed.call(1) == [("record", 1), ("replay", 1)]
    assert graphed.call(1) == [("replay", 1)]


def test_sizes_that_ran_once_push_no_recording_out(graphed: Any) -> None:
    for batch in (1, 1, 2, 2):
        graphed.call(batch)
    for batch in range(3, 40):
        assert graphed.call(batch) == [("run", batch)]
    assert graphed.call(1) == [("replay", 1)]
    assert graphed.call(2) == [("replay", 2)]


def test_what_was_not_used_for_longest_is_forgotten(graphed: Any) -> None:
    for batch in (1, 1, 2, 2, 1, 3, 3):
        graphed.call(batch)
    assert graphed.session.recorded == 2
    assert graphed.given_back == [2]
    assert graphed.call(1) == [("replay", 1)]
    assert graphed.call(3) == [("replay", 3)]
    assert graphed.call(2) == [("run", 2)]  # twice again
    assert graphed.call(2) == [("record", 2), ("replay", 2)]


def test_what_cannot_be_recorded_runs_as_usual_from_then_on(
    graphed: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any) -> Any:
        raise EngineError("no graphs", "graphs", "none")

    monkeypatch.setattr(graphed.session, "_record", refuse)
    graphed.call(1)
    assert graphed.call(1) == [("run", 1)]
    assert "no graphs" in caplog.text
    assert graphed.call(1) == [("run", 1)]


def test_sizes_outside_all_profiles_end_nothing(
    graphed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise OutOfProfileError("no profile", "others", "none")

    with monkeypatch.context() as patch:
        patch.setattr(graphed.session, "_record", refuse)
        graphed.call(1)
        for _ in range(2):
            with pytest.raises(OutOfProfileError):
                graphed.call(1)
    graphed.call(2)
    assert graphed.call(2) == [("record", 2), ("replay", 2)]


def test_outputs_of_unknown_size_are_never_recorded(graphed: Any) -> None:
    for _ in range(3):
        assert graphed.session.run([torch.empty(1)], [(-1,)]) == []
    assert graphed.session.recorded == 0


def test_outputs_without_elements_are_never_recorded(graphed: Any) -> None:
    for _ in range(3):
        assert graphed.session.run([torch.empty(1)], [(0,), (3, 0)]) == []
    assert graphed.session.recorded == 0
    for _ in range(2):
        graphed.session.run([torch.empty(1)], [(0,), (3,)])
    assert graphed.session.recorded == 1
