"""Sizes that no profile of an engine takes: PyTorch runs them and says why, or an error does."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tiny import Mlp, call_of, model

import portrt
from portrt.engines import registry
from portrt.engines.base import Session
from portrt.errors import OutOfProfileError
from portrt.runtime import policy
from portrt.runtime.select import FallbackWarning
from portrt.targets import backends
from portrt.targets.backends import BackendInfo
from portrt.verdict import YES

PROFILES = [{"x[0]": (1, 1, 4)}, {"x[0]": (16, 16, 24)}]
RANGE = {"min_shape": (1, 8), "opt_shape": (4, 8), "max_shape": (32, 8)}
PICKY = BackendInfo(name="picky", runtime="nowhere:Picky")


class Picky(Session):
    """A backend whose engine takes the sizes of its profiles alone, as TensorRT's do."""

    def __init__(self) -> None:
        self.ran: list[int] = []

    def accepts(self, *_: Any) -> Any:
        return YES

    def open(self, engine: Any, signature: Any, *_: Any, **__: Any) -> Any:
        self.ranges = signature.inputs[0].shape[0].profiles or ((1, 4, 8),)
        return self

    def run(self, inputs: Any, shapes: Any) -> list[torch.Tensor]:
        size = len(inputs[0])
        if not any(low <= size <= high for low, _, high in self.ranges):
            told = ", ".join(f"{low} to {high}" for low, _, high in self.ranges)
            raise OutOfProfileError(f"no profile takes {size}", told, "use other sizes")
        self.ran.append(size)
        return [torch.full(shape, 42.0) for shape in shapes]


@pytest.fixture
def picky(monkeypatch: pytest.MonkeyPatch) -> Iterator[Picky]:
    made, real = Picky(), registry.runtime
    monkeypatch.setitem(backends.BUILT_IN, "picky", PICKY)
    monkeypatch.setattr(registry, "runtime", lambda name: made if name == "picky" else real(name))
    yield made


def call(profiles: Any = PROFILES) -> Any:
    program = portrt.compile(
        model(),
        inputs=[portrt.Input(**RANGE)],
        engines="onnxruntime",
        min_block_size=1,
        profiles=profiles,
        output_format="exported_program",
    )

    def to_picky(entry: dict[str, Any]) -> None:
        entry["engines"][0].update(backend="picky", requires={"device": ["cpu"]})

    return call_of(program).edited(to_picky)


def test_pytorch_takes_such_sizes_and_says_why_once(picky: Picky) -> None:
    made = call()
    assert [size["profiles"] for size in made.entry["inputs"][0]["shape"][:1]] == [
        [[1, 1, 4], [16, 16, 24]]
    ]
    with pytest.warns(FallbackWarning, match="no profile takes 9; it takes 1 to 4, 16 to 24"):
        made(torch.randn(9, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for size in (1, 4, 5, 15, 16, 24, 25, 32, 9):
            x = torch.randn(size, 8)
            (result,) = made(x)
            if size in picky.ran:
                assert (result == 42.0).all()
            else:
                torch.testing.assert_close(result, model()(x))
    assert picky.ran == [1, 4, 16, 24]


def test_where_pytorch_is_forbidden_the_error_has_the_sizes(picky: Picky) -> None:
    made = call()
    with policy(fallback="error"):
        with pytest.raises(OutOfProfileError, match="no profile takes 9") as caught:
            made(torch.randn(9, 8))
        assert caught.value.expected == "1 to 4, 16 to 24"
        made(torch.randn(3, 8))
    assert picky.ran == [3]


def test_a_warning_that_is_made_an_error_is_one_at_each_call(picky: Picky) -> None:
    made = call()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            with pytest.raises(FallbackWarning, match="no profile takes 9"):
                made(torch.randn(9, 8))


def test_an_engine_of_all_sizes_is_called_as_it_is(picky: Picky) -> None:
    """Its block has no profiles: that it refuses sizes is a fault, which is not hidden."""
    with pytest.raises(OutOfProfileError):
        call(None)(torch.randn(9, 8))


def test_only_an_adopted_engine_knows_its_profiles(picky: Picky) -> None:
    made = call(None).edited(lambda entry: entry["engines"][0]["build"].update(adopted=True))
    x = torch.randn(9, 8)
    with pytest.warns(FallbackWarning, match="no profile takes 9; it takes 1 to 8"):
        (result,) = made(x)
    torch.testing.assert_close(result, model()(x))
    made(torch.randn(8, 8))
    assert picky.ran == [8]


@pytest.mark.parametrize("size", [0, 33])
def test_outside_the_range_of_all_the_error_has_range_and_size(size: int) -> None:
    module = portrt.compile(
        Mlp().eval(), inputs=[portrt.Input(**RANGE)], engines="onnxruntime", min_block_size=1
    )
    with pytest.raises(portrt.errors.InputError) as caught:
        module(torch.randn(size, 8))
    assert f"input 'x' of the program has shape ({size}, 8)" in caught.value.happened
    assert caught.value.expected == "a size from 1 to 32 in dimension 0"


def test_an_engine_that_is_compared_gets_sizes_of_a_profile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The example that was exported has 4 rows, for which the engine has no profile."""
    backend = registry.runtime("onnxruntime")
    real = backend.open
    seen: list[int] = []

    def opened(engine: Any, signature: Any, *args: Any, **options: Any) -> Any:
        session, ranges = real(engine, signature, *args, **options), Picky()
        ranges.open(engine, signature)

        class Both(Session):
            def run(self, inputs: Any, shapes: Any) -> Any:
                ranges.run(inputs, shapes)
                seen.append(len(inputs[0]))
                return session.run(inputs, shapes)

        return Both()

    monkeypatch.setattr(type(backend), "open", lambda _, *args, **options: opened(*args, **options))
    program = portrt.compile(
        model(),
        inputs=[portrt.Input(**RANGE)],
        engines="onnxruntime",
        min_block_size=1,
        profiles=[{"x[0]": (16, 20, 24)}],
        output_format="exported_program",
        cache_dir="off",
    )
    (engine,) = json.loads(call_of(program).text)["engines"]
    assert seen == [20]
    assert engine["check"]["outputs"][0]["ok"]
