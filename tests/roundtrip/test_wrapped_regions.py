"""Regions that torch.export wraps, no_grad and autocast, and operators that it makes functional.

They do not cut a model in two: what is inside them is in the engine with what is around them.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from harness import assert_same
from models import randn
from torch import nn
from torch._higher_order_ops.associative_scan import associative_scan
from torch.export import Dim
from torch.utils.checkpoint import checkpoint

import portrt


@torch.library.custom_op("portrt_tests::add_in_place", mutates_args={"x"})
def add_in_place(x: torch.Tensor, y: torch.Tensor) -> None:
    """x += y."""
    x.add_(y)


BATCH = ({0: Dim("batch", min=1, max=8)},)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)


class GradModes(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            y = self.first(x).tanh()
        with torch.enable_grad():
            y = self.second(y).relu()
        return self.second(y).softmax(-1)


class Autocast(Net):
    """bfloat16 in the middle, as a mixed-precision model has it, and float32 kept in there."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = self.first(x).tanh()
            with torch.autocast("cpu", enabled=False):
                y = self.second(y.float()).relu()
            y = self.first(y)
        return y.float().softmax(-1)


class Checkpointed(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = checkpoint(lambda t: self.first(t).tanh(), x, use_reentrant=False)
        return self.second(y).softmax(-1)


class RotaryInFloat32(Net):
    """What decoders of transformers do around their position table."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad(), torch.autocast(device_type="cpu", enabled=False):
            angles = torch.arange(x.shape[0]).float()[:, None] * 0.1
            cos, sin = angles.cos(), angles.sin()
        return self.first(x) * cos + self.second(x) * sin


class PrefixSums(Net):
    """Taken apart to slices of one size, so that its length is fixed."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        decays, values = self.first(x).sigmoid(), self.second(x)

        def combine(left: Any, right: Any) -> Any:
            return left[0] * right[0], left[1] * right[0] + right[1]

        return associative_scan(combine, (decays, values), dim=1, combine_mode="generic")[1]


class WritesByOperator(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x).tanh()
        torch.ops.portrt_tests.add_in_place(y, x)
        return self.second(y).relu()


def compiled(model: nn.Module, x: torch.Tensor, **options: Any) -> torch.export.ExportedProgram:
    return portrt.compile(
        model,
        inputs=[x],
        engines="onnxruntime",
        min_block_size=1,
        output_format="exported_program",
        **options,
    )


def operators(program: torch.export.ExportedProgram) -> list[Any]:
    return [
        node.target
        for node in program.graph.nodes
        if isinstance(node.target, (torch._ops.OpOverload, torch._ops.HigherOrderOperator))
    ]


@pytest.mark.parametrize(
    ("model", "tolerance"),
    [
        (GradModes, 1e-5),
        (Autocast, 2e-2),
        (Checkpointed, 1e-5),
        (RotaryInFloat32, 1e-5),
    ],
)
def test_a_region_is_in_the_engine(model: type[nn.Module], tolerance: float) -> None:
    torch.manual_seed(0)
    net = model().eval()
    program = compiled(net, randn(3, 8), dynamic_shapes=BATCH)

    assert operators(program) == [torch.ops.portrt.execute_engine.default]
    for batch in (3, 1, 8):
        x = randn(batch, 8)
        with torch.no_grad():
            assert_same(program.module()(x), net(x), tolerance, tolerance)


@pytest.mark.parametrize("model", [GradModes, RotaryInFloat32])
def test_so_is_one_of_a_program_that_was_exported_with_gradients(model: type[nn.Module]) -> None:
    torch.manual_seed(0)
    net = model().eval()
    exported = torch.export.export(net, (randn(3, 8),), dynamic_shapes=BATCH)
    kinds = {str(node.target) for node in exported.graph.nodes}
    assert any(kind.startswith("wrap_with_") for kind in kinds)
    program = portrt.compile(
        exported, engines="onnxruntime", min_block_size=1, output_format="exported_program"
    )

    assert operators(program) == [torch.ops.portrt.execute_engine.default]
    x = randn(5, 8)
    with torch.no_grad():
        assert_same(program.module()(x), net(x), 1e-5, 1e-5)


def test_an_associative_scan_is_in_the_engine() -> None:
    torch.manual_seed(0)
    net = PrefixSums().eval()
    program = compiled(net, randn(2, 7, 8))

    assert operators(program) == [torch.ops.portrt.execute_engine.default]
    x = randn(2, 7, 8)
    state, rows = torch.zeros(2, 8), []
    with torch.no_grad():
        decays, values = net.first(x).sigmoid(), net.second(x)
        for step in range(7):
            state = state * decays[:, step] + values[:, step]
            rows.append(state)
    assert_same(program.module()(x), torch.stack(rows, 1), 1e-5, 1e-5)


def test_an_operator_that_writes_stays_in_pytorch_between_engines() -> None:
    torch.manual_seed(0)
    net = WritesByOperator().eval()
    reports: list[Any] = []
    program = compiled(net, randn(3, 8), dynamic_shapes=BATCH, report=reports.append)

    assert operators(program).count(torch.ops.portrt.execute_engine.default) == 2
    (item,) = reports[-1].fallbacks
    assert item.reason == "portrt_tests.add_in_place.default writes to its inputs"
    assert "returns new tensors" in item.remedy
    assert "add_in_place(y, x)" in item.source
    x = randn(5, 8)
    with torch.no_grad():
        assert_same(program.module()(x), net(x), 1e-5, 1e-5)
