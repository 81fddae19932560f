"""CPU tensors and fake libraries in the place of a GPU and of TensorRT."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo  # before anything of torch is replaced
from fake_tensorrt import fake_library
from rig import FREE, TOTAL, Rig, manifest_of, spec_of

from portrt import torch_internals
from portrt.compiler.backends.tensorrt import tensorrt
from portrt.engines.tensorrt import libraries, memory
from portrt.engines.tensorrt.engine import open_engine
from portrt.engines.tensorrt.session import TensorRTSession
from portrt.verdict import YES


@dataclass
class FakeGpu:
    """What torch says of the GPU; a test sets it.

    Attributes:
        capturing: Whether the current stream is being captured.
        events: What was done: "synchronize".
        refuse: Allocations of so many bytes or more fail; None for none.
        allocated: Bytes of every allocation of uint8, in order.
        current: Index of the current device.
    """

    capturing: bool = False
    events: list[str] = field(default_factory=list)
    refuse: int | None = None
    allocated: list[int] = field(default_factory=list)
    current: int = 0
    _thread: threading.local = field(default_factory=threading.local)

    @property
    def stream(self) -> int:
        """Handle of the stream that is current in this thread."""
        return getattr(self._thread, "stream", 0)

    @stream.setter
    def stream(self, handle: int) -> None:
        self._thread.stream = handle


@pytest.fixture(scope="package", autouse=True)
def _only_new_objects_are_searched() -> Iterator[None]:
    """Keep what was made before these tests out of the collections that end each of them."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    """The CPU under the name of CUDA device 0."""
    found = FakeGpu()

    def guarded(allocate: Any) -> Any:
        def guard(*args: Any, **kwargs: Any) -> torch.Tensor:
            made: torch.Tensor = allocate(*args, **kwargs)
            size = made.numel() * made.element_size()
            if made.dtype == torch.uint8 and size:
                found.allocated.append(size)
            if found.refuse is not None and size >= found.refuse:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return made

        return guard

    def synchronize(device: Any = None) -> None:
        found.events.append("synchronize")

    @contextlib.contextmanager
    def on(device: torch.device | int) -> Iterator[None]:
        before = found.current
        found.current = device if isinstance(device, int) else device.index or 0
        yield
        found.current = before

    monkeypatch.setattr(torch, "empty", guarded(torch.empty))
    empty_strided = guarded(torch_internals.empty_strided_on("cpu"))
    monkeypatch.setattr(torch_internals, "empty_strided_on", lambda _: empty_strided)
    monkeypatch.setattr(memory, "_small", {})
    monkeypatch.setattr(torch.cuda, "device", on)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: found.current)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: found.capturing)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (FREE, TOTAL))
    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    monkeypatch.setattr(torch_internals, "current_device_index", lambda: found.current)
    monkeypatch.setattr(torch_internals, "is_capturing", lambda: found.capturing)
    monkeypatch.setattr(torch_internals, "current_stream_handle", lambda _: found.stream)
    return found


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Makes a fake library importable."""

    def make(name: str = "tensorrt", version: str = "10.13.0.35") -> Any:
        made = fake_library(name, version)
        monkeypatch.setitem(sys.modules, name, made)
        return made

    monkeypatch.setattr(libraries, "_libraries", {})
    yield make
    gc.collect()


@pytest.fixture
def trt(install: Callable[..., Any]) -> Any:
    """The fake `tensorrt`."""
    return install()


@pytest.fixture
def rig(gpu: FakeGpu, trt: Any) -> Callable[..., Rig]:
    """Opens an engine on the fake library."""

    def make(
        plan: bytes,
        inputs: dict[str, Any],
        outputs: dict[str, Any],
        built: tuple[int, ...] = (10, 13),
        **build: Any,
    ) -> Rig:
        lib = libraries.library("tensorrt")
        data = torch.frombuffer(bytearray(plan), dtype=torch.uint8)
        spec = spec_of(plan, **build)
        cpu = torch.device("cpu", 0)
        opened = open_engine(lib, lib.runtime(), data, spec.data.sha256, built, cpu)
        session = TensorRTSession(opened, spec, manifest_of(inputs, outputs))
        return Rig(session, trt)

    return make


@pytest.fixture
def builder(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Lets the backend build by the fake, in the worker process; call it to say what it is like."""
    names = "from fake_builder import *\nfrom fake_builder import __version__\n"
    (tmp_path / "tensorrt.py").write_text(names)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(Path(__file__).parent)]))
    monkeypatch.setattr(tensorrt.TensorRTBuilder, "can_build", lambda *_: YES)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Fake GPU")

    def tell(**told: Any) -> None:
        monkeypatch.setenv("FAKE_TENSORRT", json.dumps(told))
        tensorrt.builder_version.cache_clear()

    tell()
    yield tell
    tensorrt.builder_version.cache_clear()
