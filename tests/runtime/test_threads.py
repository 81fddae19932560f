"""Loading, saving and first calls in several threads: torch's serializer takes one at a time."""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._export.serde import serialize
from torch.export import ExportedProgram

import portrt
from portrt.errors import LoadError
from portrt.torch_internals import serialization

X = torch.linspace(-1, 1, 24).view(3, 8)


def in_threads(count: int, work: Callable[[int], Any]) -> list[Any]:
    """Call a function in threads that start together; its results, or what it raised."""
    start = threading.Barrier(count)
    results: list[Any] = [None] * count

    def run(index: int) -> None:
        start.wait()
        try:
            results[index] = work(index)
        except BaseException as err:
            results[index] = err

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_threads_load_one_file(saved: Path, model: torch.nn.Module) -> None:
    for program in in_threads(4, lambda _: [portrt.load(saved) for _ in range(4)][-1]):
        torch.testing.assert_close(program.module()(X), model(X))


@pytest.mark.parametrize("output_format", ["exported_program", "module"])
def test_first_calls_in_pytorch(saved: Path, model: torch.nn.Module, output_format: Any) -> None:
    """Each reads the source of its block, while other threads load files and save them."""
    loaded = [portrt.load(saved, engines=(), output_format=output_format) for _ in range(3)]
    modules = [item.module() if isinstance(item, ExportedProgram) else item for item in loaded]
    program = portrt.load(saved)

    def work(index: int) -> Any:
        if index < len(modules):
            return modules[index](X)
        if index == len(modules):
            return portrt.load(saved).module()(X)
        portrt.save(program, saved.with_name(f"{output_format}.pt2"))
        return portrt.load(saved.with_name(f"{output_format}.pt2")).module()(X)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = in_threads(5, work)
    for found in results:
        torch.testing.assert_close(found, model(X))


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Another thread is in torch's deserializer, and leaves it while we wait; the pauses."""
    pauses: list[float] = []

    def leave(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            monkeypatch.setattr(serialize, serialization._STATE, None)

    monkeypatch.setattr(serialization.time, "sleep", leave)
    monkeypatch.setattr(serialize, serialization._STATE, object())
    return pauses


def test_waits_for_a_thread_that_called_torch_itself(
    saved: Path, model: torch.nn.Module, busy: list[float]
) -> None:
    program = portrt.load(saved)
    assert len(busy) == 3
    torch.testing.assert_close(program.module()(X), model(X))


def test_begins_again_where_another_thread_was_faster(saved: Path, busy: list[float]) -> None:
    state = getattr(serialize, serialization._STATE)
    setattr(serialize, serialization._STATE, None)
    opened = []

    def file() -> io.BytesIO:
        opened.append(1)
        if len(opened) == 1:
            setattr(serialize, serialization._STATE, state)
        return io.BytesIO(saved.read_bytes())

    program = serialization.one_at_a_time(lambda: torch.export.load(file()))
    assert isinstance(program, ExportedProgram)
    assert len(opened) == 2
    assert len(busy) == 3


def test_gives_up_after_a_time(
    saved: Path, busy: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serialization, "_PATIENCE_S", 0.0)
    with pytest.raises(LoadError, match="another thread was in torch's serializer"):
        portrt.load(saved)
    assert not busy
    monkeypatch.setattr(serialize, serialization._STATE, None)
    portrt.load(saved)  # nothing is left locked


def test_other_assertions_are_raised(saved: Path) -> None:
    def file() -> io.BytesIO:
        raise AssertionError("of the caller")

    with pytest.raises(AssertionError, match="of the caller"):
        serialization.one_at_a_time(lambda: torch.export.load(file()))
    portrt.load(saved)


def test_a_load_within_a_load(
    saved: Path, model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a sample input's class is in a module that loads a program when it is imported."""
    real = serialize.deserialize_torch_artifact
    inner: list[Any] = []

    def unpickle(artifact: Any) -> Any:
        if not inner:
            inner.append(None)
            inner[0] = portrt.load(saved)
        return real(artifact)

    monkeypatch.setattr(serialize, "deserialize_torch_artifact", unpickle)
    for program in (portrt.load(saved), inner[0]):
        torch.testing.assert_close(program.module()(X), model(X))
    del inner[:]
    for program in (torch.export.load(saved), inner[0]):
        torch.testing.assert_close(program.module()(X), model(X))
