"""Related sizes, control flow, complex numbers, random numbers and state, against eager PyTorch.

What no engine takes stays in PyTorch, between engines; either way the numbers are eager's, here and
in a new process.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import TESTS, assert_same, run_jobs
from torch import nn
from torch.export import Dim

import portrt

RUN = TESTS / "roundtrip" / "run.py"
N = Dim("n", min=3, max=12)
Calls = list[tuple[torch.Tensor, ...]]


@dataclass(frozen=True)
class Case:
    """A model, the arguments of its calls, and which of their sizes vary."""

    name: str
    model: type[nn.Module]
    calls: Callable[[], Calls]
    dynamic_shapes: Any = None

    def __str__(self) -> str:
        return self.name


class Halves(nn.Module):
    """Sizes 2 * n, n + 1, n and ceil(n / 2)."""

    def forward(self, x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> Any:
        return x.view(-1, 2, 3).sum(1) * z[:, None] + y[1:, None], (z * 2)[::2].relu()


class ImageAndText(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.embed = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Embedding(20, 8)

    def forward(self, image: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        rows = self.conv(image).flatten(2).transpose(1, 2)
        words = self.embed(tokens)
        seen = nn.functional.scaled_dot_product_attention(words, rows, rows)
        return torch.cat([seen, rows], 1) * 2


class WhileLoop(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        from torch._higher_order_ops.while_loop import while_loop

        x = self.first(x).tanh()
        step = torch.zeros((), dtype=torch.int64)
        _, y = while_loop(
            lambda i, y: (i < 5) & (y.abs().sum() < 100.0), lambda i, y: (i + 1, y * 2), (step, x)
        )
        return y.sigmoid() + 1


class Scan(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> Any:
        from torch._higher_order_ops.scan import scan

        x = self.first(x)
        last, every = scan(lambda c, row: (c * 0.5 + row, (c + row).tanh()), x[0] * 0, x)
        return last.relu() * 2, every + 1


class NestedBranches(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x.tanh() * 2

        def inner(t: torch.Tensor) -> torch.Tensor:
            return torch.cond(t.max() > 1, lambda u: u.relu(), lambda u: u - 1, (t,))

        return torch.cond(y.sum() > 0, inner, lambda t: t * 3, (y,)).sigmoid() + 1


class Spectrum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Parameter(torch.randn(5, dtype=torch.complex64))
        self.last = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> Any:
        spectrum = torch.fft.rfft(x * 2) * self.filter
        return self.last(torch.fft.irfft(spectrum, n=8)), spectrum.abs(), spectrum.angle().cos()


class Random(nn.Module):
    def forward(self, x: torch.Tensor) -> Any:
        y = x.softmax(-1)
        return torch.multinomial(y, 1) * 2, torch.bernoulli(y) + y, torch.randn_like(y) * y


class SizesFromData(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> Any:
        y = self.last(x)
        rows = y[y.sum(1) > 0]
        values = torch.unique((y * 2).round())
        return rows * 2, torch.nonzero(y > 0).sum(0), values, self.last(rows).sum()


class MutatesInput(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x[:, 1].mul_(2)
        x.add_(y.sigmoid())
        return (x @ y.T).relu()


class KeyValueCache(nn.Module):
    """Grows by one row a call; the rows of earlier calls stay."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(6, 4))
        self.register_buffer("length", torch.zeros(1, dtype=torch.int64))
        self.project = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.rows.index_copy_(0, self.length, self.project(x))
        self.length += 1
        seen = torch.arange(6) < self.length
        return (self.rows @ x.T).masked_fill(~seen[:, None], -1e9).softmax(0)


def randn(*shapes: tuple[int, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(torch.randn(shape) for shape in shapes)


def image_and_text(batch: int, height: int, width: int, length: int) -> tuple[torch.Tensor, ...]:
    return torch.randn(batch, 3, height, width), torch.randint(0, 20, (batch, length))


ROWS = ({0: N},)
CASES = [
    Case(
        "related_sizes",
        Halves,
        lambda: [randn((2 * n, 3), (n + 1,), (n,)) for n in (5, 3, 12)],
        ({0: 2 * N}, {0: N + 1}, {0: N}),
    ),
    Case(
        "batch_length_height_and_width",
        ImageAndText,
        lambda: [image_and_text(*sizes) for sizes in ((2, 8, 6, 5), (1, 17, 9, 3), (4, 5, 20, 8))],
        (
            {
                0: (batch := Dim("batch", min=1, max=4)),
                2: Dim("height", min=4, max=20),
                3: Dim("width", min=4, max=20),
            },
            {0: batch, 1: Dim("length", min=2, max=8)},
        ),
    ),
    Case("while_loop", WhileLoop, lambda: [randn((n, 4)) for n in (4, 3, 12)], ROWS),
    Case("scan", Scan, lambda: [randn((3, 4)) for _ in range(3)]),
    Case(
        "nested_branches",
        NestedBranches,
        lambda: [(torch.randn(3, 4) + shift,) for shift in (0, 3, -3, 0.3)],
    ),
    Case("complex_numbers", Spectrum, lambda: [randn((n, 8)) for n in (4, 3, 12)], ROWS),
    Case("random_numbers", Random, lambda: [randn((n, 4)) for n in (4, 3, 12)], ROWS),
    Case("sizes_from_data", SizesFromData, lambda: [randn((n, 4)) for n in (5, 3, 12)], ROWS),
    Case("mutated_input", MutatesInput, lambda: [randn((n, 4), (n, 4)) for n in (4, 3, 12)],
         ({0: N}, {0: N})),
    Case("key_value_cache", KeyValueCache, lambda: [randn((1, 4)) for _ in range(5)]),
]  # fmt: skip


def results(module: Any, calls: Calls) -> list[Any]:
    """Result and arguments after each call, as roundtrip/run.py gives them."""
    found = []
    with torch.no_grad():
        for call in copy.deepcopy(calls):
            torch.manual_seed(7)
            found.append((module(*call), call, {}))
    return found


@pytest.mark.parametrize("case", CASES, ids=str)
def test_numbers_are_eagers_here_and_in_a_new_process(case: Case, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = case.model().eval()
    calls = case.calls()
    program = portrt.compile(
        model,
        inputs=calls[0],
        dynamic_shapes=case.dynamic_shapes,
        engines="onnxruntime",
        min_block_size=1,
        output_format="exported_program",
    )
    target = torch.ops.portrt.execute_engine.default
    assert target in [node.target for node in program.graph.nodes]
    torch.export.save(program, tmp_path / "model.pt2")
    torch.save([(call, {}) for call in calls], tmp_path / "calls.pt")
    job = {
        "file": str(tmp_path / "model.pt2"),
        "inputs": str(tmp_path / "calls.pt"),
        "outputs": str(tmp_path / "found.pt"),
        "how": "run",
        "needs": (),
    }
    here = results(program.module(), calls)
    (error,) = run_jobs(RUN, [job], tmp_path)
    assert not error, error
    far = torch.load(tmp_path / "found.pt", weights_only=False)
    wanted = results(model, calls)

    assert_same(here, wanted, rtol=1e-4, atol=1e-5)
    assert_same(far, wanted, rtol=1e-4, atol=1e-5)
