"""Sizes that models compute from sizes: in engines, with eager's numbers, at every size."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from harness import assert_same
from models import randn
from torch import nn
from torch.export import Dim

import portrt
from portrt.format.dimensions import Dimension
from portrt.format.manifest import decode
from portrt.graphs import symbols
from portrt.runtime.calls import manifests_of

functional = nn.functional


class Tuple(nn.Module):
    """Several functions of one tensor, as one model."""

    def __init__(self, functions: dict[str, Callable[[torch.Tensor], Any]]) -> None:
        super().__init__()
        self.functions = functions

    def forward(self, x: torch.Tensor) -> tuple[Any, ...]:
        return tuple(function(x) for function in self.functions.values())


def compiled(model: nn.Module, *inputs: torch.Tensor, shapes: Any, **options: Any) -> Any:
    options = {"require_full_compilation": True, **options}
    return portrt.compile(
        model.eval(),
        inputs=inputs,
        dynamic_shapes=shapes,
        engines="onnxruntime",
        min_block_size=1,
        **options,
    )


# ---- sizes and numbers with fractions -----------------------------------------------------------


def zeros(size: Callable[[Any], Any]) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: torch.cat([torch.zeros(size(x.shape[1])), x.sum(0)])


SIZES = {
    "a factor": zeros(lambda n: torch.sym_int(n * 2.25)),
    "a factor that is not exact": zeros(lambda n: torch.sym_int(n * 1.1) + 1),
    "two factors": zeros(lambda n: torch.sym_int(torch.sym_int(n * 1.5) * 1.5)),
    "a ceiling": zeros(lambda n: math.ceil(n / 3) + 1),
    "a floor": zeros(lambda n: math.floor(n / 3) + 2),
    "a rounded half": zeros(lambda n: round(n * 0.5) + 2),
    "a ceiling of integers": zeros(lambda n: -(-n // 4) + 1),
    "a negative fraction": zeros(lambda n: torch.sym_int((n - 5) * 0.5) + 3),
    "a negative quotient": zeros(lambda n: (n - 5) // 2 + 4),
    "a ratio of sizes": zeros(lambda n: math.ceil(n / (n + 1) * 3) + 1),
    "interpolate": lambda x: functional.interpolate(x[:, None], scale_factor=1.5, mode="linear"),
    "interpolate to a size": lambda x: functional.interpolate(
        x[:, None], size=torch.sym_int(x.shape[1] * 1.5) + 1, mode="linear"
    ),
    "half steps": lambda x: torch.arange(0, x.shape[1], 0.5) + x.sum(),
    "from a half": lambda x: torch.arange(0.5, x.shape[1] + 1) + x.sum(),
    "steps that are not exact": lambda x: torch.arange(0, x.shape[1], 0.3) + x.sum(),
    "steps of a fraction": lambda x: torch.arange(0.0, 3.0, x.shape[1] / 50) + x.sum(),
    "half precision": lambda x: (
        torch.arange(0.5, x.shape[1] + 1, dtype=torch.float16) + x.sum() * 0
    ),
    "roll": lambda x: torch.roll(x, [x.shape[1] // 2, 1], [1, 0]),
    "roll back": lambda x: torch.roll(x, -(x.shape[1] // 2), -1),
    "roll flat": lambda x: torch.roll(x, x.shape[1] + 1),
    "roll integers": lambda x: torch.roll((x * 9).long(), x.shape[1] // 2, 1),
}
NUMBERS = {
    "product": lambda x: x * (x.shape[1] / 3),
    "sum": lambda x: x + x.shape[1] / 7,
    "difference": lambda x: x.shape[1] / 3 - x,
    "quotient": lambda x: x / (x.shape[1] * 0.3),
    "inverse": lambda x: (x.shape[1] * 0.3) / (x.abs() + 1),
    "alpha": lambda x: torch.add(x, x, alpha=x.shape[1] / 3),
    "power": lambda x: x.abs() ** (x.shape[1] / 40),
    "bound": lambda x: x.clamp(max=x.shape[1] / 40),
    "choice": lambda x: torch.where(x > 0, x, x.shape[1] / 3),
    "masked": lambda x: x.masked_fill(x > 0, x.shape[1] / 3),
    "comparison": lambda x: x * 10 > x.shape[1] / 3,
    "tensor": lambda x: torch.full((x.shape[1],), x.shape[1] / 3, dtype=torch.float64) + x,
    "integers": lambda x: (x * 9).long() * (x.shape[1] / 3),
    "double": lambda x: x.double() * (x.shape[1] * 1.1),
    "bfloat16": lambda x: x.bfloat16() * (x.shape[1] / 3),
    "half": lambda x: x.half() * (x.shape[1] / 3),
}


@pytest.mark.parametrize("functions", [SIZES, NUMBERS], ids=["sizes", "numbers"])
def test_arithmetic_with_fractions_runs_in_engines(
    functions: dict[str, Callable[[torch.Tensor], Any]],
) -> None:
    model = Tuple(functions)
    module = compiled(model, randn(2, 12), shapes=({1: Dim("n", min=1, max=64)},))
    for n in (1, 2, 3, 7, 23, 64):
        x = randn(2, n)
        for name, got, want in zip(functions, module(x), model(x), strict=True):
            rtol = {torch.float16: 2e-3, torch.bfloat16: 1.6e-2}.get(want.dtype, 1e-5)
            try:
                torch.testing.assert_close(got, want, rtol=rtol, atol=1e-4)
            except AssertionError as err:
                raise AssertionError(f"{name} of {n}: {err}") from err


def test_a_manifest_has_no_fractions_for_sizes_that_are_whole() -> None:
    model = Tuple({"x": lambda x: functional.interpolate(x, scale_factor=1.5, mode="nearest")})
    module = compiled(model, randn(1, 2, 8), shapes=({2: Dim("n", min=2, max=64)},))
    (text,) = manifests_of(module.meta["portrt_program"])

    assert decode(text).outputs[0].shape[2] == ["floordiv", ["mul", 3, ["dim", 0, 2]], 2]


# ---- ranges of blocks inside a program ----------------------------------------------------------


class Guidance(nn.Module):
    """The batch is doubled."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.linear(torch.cumsum(torch.cat([x, x]), 0))) + 1


class Between(nn.Module):
    """Zeros are put between the rows."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.t().unsqueeze(1)
        apart = functional.conv_transpose1d(rows, torch.ones(1, 1, 1), stride=2)
        return torch.cumsum(apart, 2) * 2 + 1


class Tokens(nn.Module):
    """Two dynamic sizes are multiplied."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(torch.cumsum(x.flatten(0, 1) * 2, 0)) + 1


@pytest.mark.parametrize(
    ("model", "sizes", "dynamic", "range_of_block"),
    [
        (Guidance(), (4,), 1, (2, 128)),
        (Between(), (4,), 1, (1, 127)),
        (Tokens(), (4,), 2, (1, 4096)),
    ],
    ids=["twice", "twice minus one", "product"],
)
def test_a_block_takes_the_range_that_follows_from_the_programs(
    model: nn.Module, sizes: tuple[int, ...], dynamic: int, range_of_block: tuple[int, int]
) -> None:
    shapes = ({axis: Dim(f"n{axis}", min=1, max=64) for axis in range(dynamic)},)
    module = compiled(
        model,
        randn(*range(5, 5 + dynamic), *sizes),
        shapes=shapes,
        torch_executed_ops={"aten.cumsum"},
        require_full_compilation=False,
    )
    for n in (1, 2, 5):
        x = randn(*[n] * dynamic, *sizes)
        assert_same(module(x), model(x), 1e-5, 1e-5)
    last = decode(manifests_of(module.meta["portrt_program"])[-1])
    (found,) = [size for size in last.inputs[0].shape if isinstance(size, Dimension)]
    assert (found.min, found.max) == range_of_block


def test_ranges_in_profiles_follow_from_those_of_the_symbols() -> None:
    program = torch.export.export(
        Tokens(), (randn(5, 6, 4),), dynamic_shapes=({0: Dim("b", max=9), 1: Dim("t", max=9)},)
    )
    (x,) = program.graph.find_nodes(op="placeholder")
    batch, tokens = (size.node.expr for size in x.meta["val"].shape[:2])
    tuned = {batch: ((1, 1, 1), (2, 3, 4)), tokens: ((2, 5, 9), (1, 1, 1))}

    assert symbols.ranges_of(batch * tokens, tuned) == ((2, 5, 9), (2, 3, 4))
    assert symbols.ranges_of(2 * batch + 1, tuned) == ((3, 3, 3), (5, 7, 9))
    assert symbols.ranges_of(batch * tokens, {batch: tuned[batch]}) == ()
