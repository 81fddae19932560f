"""Divisions of whole numbers: exact, and where an older ONNX Runtime would end the process."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import onnxruntime
import pytest
import tiny
import torch

import portrt
from portrt.errors import NoUsableEngineError
from portrt.targets.versions import at_least

Division = Callable[[Any, Any], torch.Tensor]

DIVISIONS: dict[str, Division] = {
    "//": operator.floordiv,
    "%": operator.mod,
    "fmod": torch.fmod,
    "floor": lambda x, by: torch.div(x, by, rounding_mode="floor"),
    "trunc": lambda x, by: torch.div(x, by, rounding_mode="trunc"),
}
X, BY = torch.arange(-6, 6).view(3, 4), torch.tensor([1, -2, 3, 5])
with_all = pytest.mark.parametrize("name", DIVISIONS)


class Divided(torch.nn.Module):
    """A division, and beside it something that every engine takes."""

    def __init__(self, division: Division, number: int | None = None) -> None:
        super().__init__()
        self.division, self.number = division, number

    def forward(self, x: torch.Tensor, by: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.division(x, by if self.number is None else self.number), x + by


def compiled(module: torch.nn.Module, *inputs: torch.Tensor) -> Any:
    return portrt.compile(
        module,
        inputs=list(inputs),
        engines="onnxruntime",
        min_block_size=1,
        output_format="exported_program",
    )


def required(program: Any) -> str:
    """The onnxruntime that the engine of a program wants."""
    oldest: str = tiny.call_of(program).engine("onnxruntime")["requires"]["onnxruntime"]
    return oldest


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8], ids=str)
@with_all
def test_numbers_of_the_whole_range(name: str, dtype: torch.dtype) -> None:
    """Float32 holds whole numbers up to 2^24 alone; the engine is compiled with small ones."""
    limits = torch.iinfo(dtype)
    torch.manual_seed(0)
    x = torch.randint(limits.min + 1, limits.max, (3, 4), dtype=dtype)
    by = torch.tensor([3, 7, 10, -11 if dtype.is_signed else 11], dtype=dtype)
    small = x.abs() % 100
    for number in (None, 7):
        program = compiled(Divided(DIVISIONS[name], number), small, by)
        wanted = DIVISIONS[name](x, by if number is None else number)
        assert torch.equal(program.module()(x, by)[0], wanted)


@with_all
def test_a_division_by_zero_is_an_error(name: str) -> None:
    """In any release, and in a process that lives on."""
    program = compiled(Divided(DIVISIONS[name]), X, BY).module()
    assert torch.equal(program(X, BY)[0], DIVISIONS[name](X, BY))
    with pytest.raises((portrt.PortrtError, RuntimeError), match=r"(?i)zero"):
        program(X, torch.tensor([1, 0, 2, 3]))


@with_all
def test_older_releases_leave_it_to_pytorch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "__version__", "1.24.4")
    program = compiled(Divided(DIVISIONS[name]), X, BY)
    kept = [node.target for node in program.graph.nodes if node.op == "call_function"]
    assert any(str(target).startswith("aten.") for target in kept)
    assert required(program) == "1.23"  # of the sum beside it
    assert torch.equal(program.module()(X, BY)[0], DIVISIONS[name](X, BY))


@with_all
def test_what_cannot_divide_by_zero_is_in_the_engine(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "__version__", "1.24.4")
    for program in (
        compiled(Divided(DIVISIONS[name], 3), X, BY),
        compiled(Divided(DIVISIONS[name]), X.float(), BY.float()),
    ):
        assert required(program) == "1.23"
        (block,) = portrt.runtime.report(program, "cpu")
        assert block.runs_as == "onnxruntime"
        kept = [node.target for node in program.graph.nodes if node.op == "call_function"]
        assert not any(str(target).startswith("aten.") for target in kept)


NEWER = pytest.mark.skipif(
    not at_least("1.25", onnxruntime.__version__),
    reason=f"onnxruntime {onnxruntime.__version__} puts no such division in an engine",
)


@NEWER
@with_all
def test_an_engine_that_divides_is_not_for_older_releases(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = compiled(Divided(DIVISIONS[name]), X, BY)
    assert required(program) == "1.25"
    monkeypatch.setattr(onnxruntime, "__version__", "1.24.4")
    with (
        portrt.runtime.policy(fallback="error"),
        pytest.raises(NoUsableEngineError, match=r"1\.25"),
    ):
        program.module()(X, BY)
