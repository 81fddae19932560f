"""Sizes that vary, however their ranges were given: numbers at the ends and between, and outside.

Each program is compiled for ONNX Runtime, which runs here, and for TensorRT-RTX, which builds here
for the profile that follows from the ranges.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from harness import assert_same
from torch import nn
from torch.export import Dim

import portrt
from portrt import Input
from portrt.compiler.backends import registry
from portrt.errors import InputError
from portrt.runtime.calls import engine_calls

RTX = registry.builder("tensorrt_rtx").can_build()
Args = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Case:
    """A model of which sizes vary, and one way to say so.

    Attributes:
        make: Named sizes -> arguments.
        ranges: Name -> (smallest, one to export with, largest).
        dynamic_shapes: For torch.export.
        inputs: Instead of tensors.
        outside: (sizes, words of the error) of calls that are refused.
        profile: (min, opt, max) of each input in TensorRT's profile; None where a size has no end.
    """

    name: str
    model: Callable[[], nn.Module]
    make: Callable[..., Args]
    ranges: Mapping[str, tuple[int, int, int]]
    dynamic_shapes: Any = None
    inputs: Sequence[Input] | None = None
    outside: Sequence[tuple[Mapping[str, int], str]] = ()
    profile: Mapping[str, list[list[int]]] | None = None
    exported: bool = field(default=False, kw_only=True)

    def __str__(self) -> str:
        return self.name

    def sizes(self) -> list[dict[str, int]]:
        """Every combination of smallest, middle and largest sizes."""
        return [
            dict(zip(self.ranges, sizes, strict=True))
            for sizes in itertools.product(*self.ranges.values())
        ]

    def compiled(self) -> Any:
        """The module of the program."""
        torch.manual_seed(0)
        model = self.model().eval()
        example = self.make(**{name: best for name, (_, best, _) in self.ranges.items()})
        options: dict[str, Any] = {"min_block_size": 1}
        options["engines"] = ("tensorrt_rtx", "onnxruntime") if RTX else "onnxruntime"
        if self.exported:
            program = torch.export.export(model, example, dynamic_shapes=self.dynamic_shapes)
            return portrt.compile(program, **options)
        given = self.inputs or example
        return portrt.compile(model, inputs=given, dynamic_shapes=self.dynamic_shapes, **options)


class Rows(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x).softmax(-1)


class Text(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.linear = nn.Embedding(20, 8), nn.Linear(8, 8)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens)
        seen = (self.linear(x) @ x.transpose(1, 2)).softmax(-1) @ x
        return torch.cat([seen, x.mean(1, keepdim=True)], 1)  # length + 1


class Image(nn.Module):
    """Half of each side, then all of it again."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        half = self.conv(image).relu()
        small = nn.functional.max_pool2d(image, 2)
        return half.flatten(2).sum(-1) + small.amax((2, 3)).sum(1, keepdim=True)


class Related(nn.Module):
    """`x` has 2 * n + 1 rows, `y` n and the second result n // 2."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        rows = torch.cat([y, y, torch.ones(1)])
        return x.tanh() * rows[:, None], nn.functional.avg_pool1d(y[None], 2)  # n // 2


class Pairs(nn.Module):
    """`y` has half of the rows of `x`."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x.view(-1, 2, 3).sum(1).exp() + y


def rows(n: int) -> Args:
    return (torch.randn(n, 4),)


def tokens(batch: int, length: int) -> Args:
    return (torch.randint(0, 20, (batch, length)),)


def image(height: int, width: int) -> Args:
    return (torch.randn(2, 3, height, width),)


def related(n: int) -> Args:
    return torch.randn(2 * n + 1, 3), torch.randn(n)


def pairs(n: int) -> Args:
    return torch.randn(2 * n, 3), torch.randn(n, 3)


N, BATCH, LENGTH = Dim("n", min=4, max=30), Dim("batch", max=8), Dim("length", min=1, max=64)
N_RANGE = {"n": (4, 7, 30)}
N_OUTSIDE = [({"n": 3}, "a size from 4 to 30"), ({"n": 31}, "a size from 4 to 30")]
N_PROFILE = {"x": [[4, 4], [7, 4], [30, 4]]}
TEXT_RANGE = {"batch": (1, 3, 8), "length": (1, 9, 64)}
SIDES = {"height": (4, 9, 33), "width": (5, 6, 40)}
CASES = [
    Case(
        "Input",
        Rows,
        rows,
        N_RANGE,
        inputs=[Input(min_shape=(4, 4), opt_shape=(9, 4), max_shape=(30, 4))],
        outside=N_OUTSIDE,
        profile={"x": [[4, 4], [9, 4], [30, 4]]},
    ),
    Case("a named Dim", Rows, rows, N_RANGE, ({0: N},), None, N_OUTSIDE, N_PROFILE),
    Case(
        "DYNAMIC with a range",
        Rows,
        rows,
        N_RANGE,
        ({0: Dim.DYNAMIC(min=4, max=30)},),
        None,
        N_OUTSIDE,
        N_PROFILE,
    ),
    Case("AUTO", Rows, rows, {"n": (1, 7, 300)}, ({0: Dim.AUTO},)),
    Case("DYNAMIC", Rows, rows, {"n": (1, 7, 300)}, ({0: Dim.DYNAMIC},)),
    Case("a Dim without an end", Rows, rows, {"n": (0, 7, 300)}, ({0: Dim("n")},)),
    Case(
        "an exported program",
        Rows,
        rows,
        N_RANGE,
        ({0: N},),
        None,
        N_OUTSIDE,
        N_PROFILE,
        exported=True,
    ),
    Case("an exported program without an end", Rows, rows, {"n": (1, 7, 300)}, ({0: Dim.AUTO},),
         exported=True),
    Case(
        "batch and length",
        Text,
        tokens,
        TEXT_RANGE,
        ({0: BATCH, 1: LENGTH},),
        None,
        [
            ({"batch": 9, "length": 9}, "a size from 0 to 8 in dimension 0"),
            ({"batch": 3, "length": 0}, "a size from 1 to 64 in dimension 1"),
            ({"batch": 3, "length": 65}, "a size from 1 to 64 in dimension 1"),
        ],
        {"tokens": [[0, 1], [3, 9], [8, 64]]},
    ),
    Case(
        "height and width",
        Image,
        image,
        SIDES,
        ({2: Dim("height", min=4, max=33), 3: Dim("width", min=5, max=40)},),
        None,
        [
            ({"height": 3, "width": 6}, "a size from 4 to 33 in dimension 2"),
            ({"height": 9, "width": 41}, "a size from 5 to 40 in dimension 3"),
        ],
        {"image": [[2, 3, 4, 5], [2, 3, 9, 6], [2, 3, 33, 40]]},
    ),
    Case(
        "related sizes",
        Related,
        related,
        N_RANGE,
        ({0: 2 * N + 1}, {0: N}),
        None,
        [({"n": 3}, "a size from 9 to 61"), ({"n": 31}, "a size from 9 to 61")],
        {"x": [[9, 3], [15, 3], [61, 3]], "y": [[4], [7], [30]]},
    ),
    Case("related sizes that torch finds", Pairs, pairs, {"n": (2, 7, 300)},
         ({0: Dim.AUTO}, {0: Dim.AUTO})),
]  # fmt: skip


@pytest.fixture(scope="module")
def compiled() -> Callable[[Case], Any]:
    """Each program once."""
    found: dict[str, Any] = {}

    def module(case: Case) -> Any:
        if case.name not in found:
            found[case.name] = case.compiled()
        return found[case.name]

    return module


@pytest.mark.parametrize("case", CASES, ids=str)
def test_numbers_at_the_ends_and_between_are_eagers(case: Case, compiled: Any) -> None:
    torch.manual_seed(0)
    model = case.model().eval()
    torch.manual_seed(1)
    for sizes in case.sizes():
        args = case.make(**sizes)
        with torch.no_grad(), portrt.runtime.policy(fallback="error"):
            assert_same(compiled(case)(*args), model(*args), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", [case for case in CASES if case.outside], ids=str)
def test_outside_of_its_range_a_size_is_refused_with_both(case: Case, compiled: Any) -> None:
    for sizes, words in case.outside:
        args = case.make(**sizes)
        with pytest.raises(InputError) as caught:
            compiled(case)(*args)
        assert words in caught.value.expected
        assert f"has shape {tuple(args[0].shape)}" in caught.value.happened


@pytest.mark.skipif(not RTX, reason=str(RTX))
@pytest.mark.parametrize("case", CASES, ids=str)
def test_tensorrt_is_built_for_the_range(case: Case, compiled: Any) -> None:
    program = compiled(case).meta["portrt_program"]
    (call,) = engine_calls(program)
    engines = {item["backend"]: item for item in json.loads(call.args[2])["engines"]}
    if case.profile is None:  # it needs a largest size
        assert list(engines) == ["onnxruntime"]
    else:
        assert engines["tensorrt_rtx"]["build"]["profiles"] == [case.profile]


def named(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


def test_sizes_that_are_related_are_refused_where_they_are_not(compiled: Any) -> None:
    x, y = related(5)
    with pytest.raises(InputError, match=r"input 'y' of the program has shape \(4,\)") as caught:
        compiled(named("related sizes"))(x, y[:4])
    assert caught.value.expected == "5 in dimension 0"


def test_what_torch_found_of_the_sizes_is_said_with_them(compiled: Any) -> None:
    """torch.export takes 1 for a size of its own, though the range is open."""
    with pytest.raises(
        InputError, match=r"accept this combination of inputs: x \(2, 3\), y \(1, 3\)"
    ) as e:
        compiled(named("related sizes that torch finds"))(*pairs(1))
    assert e.value.expected == "x.size()[0] // 2 != 1"
