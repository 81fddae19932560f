"""check="first-open": an unchecked engine is compared with its source before it runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from tiny import Call, call_of, compiled, shared

import portrt
from portrt.engines import registry
from portrt.engines.base import Session
from portrt.errors import EngineError, NoUsableEngineError, SettingsError
from portrt.runtime import policy
from portrt.runtime.calls import manifests_of
from portrt.runtime.policy import ENV_CHECK, effective
from portrt.runtime.select import FallbackWarning
from portrt.targets import backends
from portrt.targets.backends import BackendInfo
from portrt.verdict import YES, Verdict

X = torch.linspace(-1, 1, 40).view(5, 8)
FAKE = BackendInfo(name="fake", runtime="nowhere:Fake")


class Fake(Session):
    """An engine of the name `fake` that is wrong by a share of each number."""

    name = "fake"

    def __init__(self) -> None:
        self.error: float | Exception = 0.0
        self.batches: list[int] = []

    def accepts(self, engine: Any, device: torch.device) -> Verdict:
        return YES

    def can_run(self, device: str) -> Verdict:
        return Verdict.yes("fake 1.0")

    def open(self, *args: Any, **options: Any) -> Any:
        return self

    def run(self, inputs: Any, shapes: Any) -> list[torch.Tensor]:
        self.batches.append(inputs[0].shape[0])
        if isinstance(self.error, Exception):
            raise self.error
        return [tiny.model()(inputs[0]).detach() * (1 + self.error)]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shared("onnxruntime")  # before there is a cache
    monkeypatch.setenv("PORTRT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv(ENV_CHECK, raising=False)
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    made = Fake()
    real = registry.runtime
    monkeypatch.setitem(backends.BUILT_IN, "fake", FAKE)
    monkeypatch.setattr(registry, "runtime", lambda name: made if name == "fake" else real(name))
    yield made


def call(check: Any = None, **fields: Any) -> Call:
    """Of a block with one engine, which is the fake one; batch 1 to 32, best 4."""

    def edit(entry: dict[str, Any]) -> None:
        requires = {"device": ["cpu"]}
        entry["engines"][0].update(backend="fake", requires=requires, check=check)
        entry.update(fields)

    return call_of(shared("onnxruntime")).edited(edit)


def is_right(run: Any) -> bool:
    return torch.allclose(run(X)[0], tiny.model()(X), atol=1e-6)


def test_without_the_policy_nothing_is_compared(fake: Fake, cache: Path) -> None:
    fake.error = 0.1
    assert not is_right(call())
    assert fake.batches == [5]
    assert not list(cache.glob("v1/check-*"))


def test_right_numbers_run_and_are_compared_once(fake: Fake, cache: Path) -> None:
    with policy(check="first-open"):
        assert is_right(call())
        assert fake.batches == [4, 1, 5]  # the best sizes, the smallest, the call
        assert is_right(call())  # as in another process
    assert fake.batches == [4, 1, 5, 5]
    assert len(list(cache.glob("v1/check-*"))) == 1


def test_wrong_numbers_do_not_run(fake: Fake) -> None:
    fake.error = 0.01
    with policy(check="first-open"):
        with pytest.warns(FallbackWarning, match="fake: no: its output .* differs from the source"):
            assert is_right(call())
        assert fake.batches == [4, 1]
        with policy(fallback="error"), pytest.raises(NoUsableEngineError, match=r"relative 0\.01"):
            call()(X)
    assert fake.batches == [4, 1]  # that it is wrong is remembered, too


def test_the_next_engine_is_taken(fake: Fake) -> None:
    fake.error = 0.01
    two = call_of(shared("onnxruntime"))

    def edit(entry: dict[str, Any]) -> None:
        wrong = {**entry["engines"][0], "backend": "fake", "check": None, "weights": []}
        wrong["data"] = {**wrong["data"], "blob": len(two.blobs)}
        entry["engines"].insert(0, wrong)
        entry["blob_count"] += 1

    both = Call((*two.blobs, two.blobs[-1].clone()), two.edited(edit).entry)
    with policy(check="first-open", fallback="error"):
        assert is_right(both)
    assert fake.batches == [4, 1]


def test_an_engine_that_ran_unchecked_is_checked_when_it_is_asked_for(fake: Fake) -> None:
    fake.error = 0.01
    one = call()
    assert not is_right(one)
    with policy(check="first-open"), pytest.warns(FallbackWarning):
        assert is_right(one)


def test_what_was_checked_when_it_was_built_is_not_checked_again(fake: Fake) -> None:
    fake.error = 0.01
    with policy(check="first-open"):
        assert not is_right(call(check={"device": "cpu", "outputs": []}))
        assert fake.batches == [5]
        with pytest.warns(FallbackWarning):
            assert is_right(call(check={"skipped": "there is no such GPU here"}))


def test_another_engine_is_compared_for_itself(fake: Fake) -> None:
    with policy(check="first-open"):
        one = call()
        assert is_right(one)
        data = one.blobs[-1].clone()
        data[-1] ^= 1
        assert is_right(one.resealed(len(one.blobs) - 1, data))
    assert fake.batches == [4, 1, 5] * 2


def test_an_engine_that_fails_in_the_comparison_does_not_run(fake: Fake, cache: Path) -> None:
    fake.error = EngineError("its kernel failed", "another", "wait")
    with policy(check="first-open"), pytest.warns(FallbackWarning, match="its kernel failed"):
        assert is_right(call())
    assert not list(cache.glob("v1/check-*"))  # it may do better another time


def test_without_a_source_an_unchecked_engine_does_not_run() -> None:
    one = call()

    def strip(entry: dict[str, Any]) -> None:
        entry.update(source=None, source_weights=[], blob_count=2)
        entry["engines"][0]["data"]["blob"] = 1

    stripped = Call((one.blobs[0], one.blobs[2]), one.edited(strip).entry)
    with policy(check="first-open"), pytest.raises(NoUsableEngineError, match="was stripped"):
        stripped(X)
    assert is_right(stripped)


def test_without_a_cache_it_is_compared_each_time(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORTRT_CACHE_DIR", "off")
    with policy(check="first-open"):
        assert is_right(call())
        assert is_right(call())
    assert fake.batches == [4, 1, 5] * 2


def test_who_may_ask_for_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert effective({}, None).check == "off"
    assert effective({"check": "of tomorrow"}, None).check == "off"
    monkeypatch.setenv(ENV_CHECK, "first-open")
    assert effective({}, None).check == "first-open"
    assert effective({"check": "off"}, None).check == "off"
    with policy(check="off") as inner:
        assert effective({"check": "first-open"}, inner).check == "off"
    program = compiled("onnxruntime", check="first-open")
    assert '"policy":{"check":"first-open"' in manifests_of(program)[0]
    portrt.save(program, tmp_path / "asks.pt2")
    loaded = portrt.load(tmp_path / "asks.pt2", check="off")
    assert '"policy":{"check":"off"' in manifests_of(loaded)[0]
    for bad in ("always", "error", 1):
        with pytest.raises(SettingsError, match="check is"), policy(check=bad):
            pass
