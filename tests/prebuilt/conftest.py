"""Plans to adopt."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import tiny
from fake_plans import FakeBackend

from portrt.compiler.backends import registry as builders
from portrt.engines import registry
from portrt.runtime import trust


@pytest.fixture(scope="session")
def rtx_plan() -> bytes:
    """The MLP of tests/tiny.py, batch 1 to 32, as TensorRT-RTX built it."""
    verdict = builders.builder("tensorrt_rtx").can_build()
    if not verdict:
        pytest.skip(str(verdict))
    call = tiny.call_of(tiny.shared("tensorrt_rtx"))
    entry = call.engine("tensorrt_rtx")
    data: bytes = call.blobs[entry["data"]["blob"]].numpy().tobytes()
    return data


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeBackend]:
    made = FakeBackend()
    monkeypatch.setattr(registry, "runtime", lambda name: made)
    monkeypatch.setattr(trust, "_trusted", set())
    yield made
