"""Numbers and masks that are read from constants are known when a model is compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from harness import assert_same
from torch import nn
from torch.export import Dim

import portrt
from portrt.compiler.capture import capture
from portrt.compiler.lower.constant_data import constant_data
from portrt.compiler.sizes import data_sizes
from portrt.runtime.calls import engine_calls

aten = torch.ops.aten


class Holder(nn.Module):
    """A function of an input and of tensors that the module holds."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        self.register_buffer("count", torch.tensor(2))
        self.register_buffer("factor", torch.tensor(0.5))
        self.register_buffer("mask", torch.tensor([True, False, True]))
        self.register_buffer("byte", torch.tensor([1, 0, 1], dtype=torch.uint8))
        self.register_buffer("places", torch.tensor([0, 2]))
        self.plain = torch.tensor([True, True, False])
        self.grid = torch.tensor([[True, False], [False, True], [True, True]])

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(self, x)


def padded(m: Any, x: torch.Tensor) -> torch.Tensor:
    left = m.count.item() + 1
    right = (m.count * m.factor).ceil().long().item()
    return torch.nn.functional.pad(x, (left, right))


def written_before(m: Any, x: torch.Tensor) -> torch.Tensor:
    m.count.add_(1)
    return torch.nn.functional.pad(x, (m.count.item(), 0))


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "numbers": padded,
    "number as a factor": lambda m, x: x * m.factor.item() + m.count.item(),
    "one mask": lambda m, x: x[:, m.mask].relu(),
    "two masks": lambda m, x: x[:, m.plain, :, m.plain],
    "mask of two dimensions": lambda m, x: (
        x.transpose(1, 3)[:, :2, :, :].transpose(1, 3)[:, :, 0, :2].permute(1, 2, 0)[m.grid]
    ),
    "computed mask": lambda m, x: x[..., ~m.plain & m.mask],
    "nonzero": lambda m, x: x.index_select(1, m.mask.nonzero().flatten()),
    "masked table": lambda m, x: x + torch.arange(3.0)[m.plain].sum(),
    "mask of nothing": lambda m, x: x[:, m.mask & ~m.mask],
    "buffers apart": lambda m, x: x[:, m.mask, :, m.mask],
    "operator": lambda m, x: aten.index.Tensor(x, [None, m.mask, None, m.plain]),
    "one for all": lambda m, x: x[:, m.mask & m.plain, :, m.mask],
    "mask and positions": lambda m, x: x[:, m.mask, :, m.places] + x[:, m.places, 0, m.plain],
    "masks written in the model": lambda m, x: x[
        :, torch.tensor([True, False, True]), :, torch.tensor([False, True, True])
    ],
    "bytes": lambda m, x: (x[:, m.byte, :, m.mask], x[..., m.byte]),
    "set": lambda m, x: aten.index_put.default(x, [None, m.mask, None, m.plain], x.amax()),
    "add": lambda m, x: aten.index_put.default(
        x, [None, m.places[:, None], None, m.mask], x.amax(), True
    ),
}


# torch warns of bytes as masks, where they are used.
@pytest.mark.filterwarnings("ignore:indexing with dtype torch.uint8")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_one_engine_has_eagers_numbers(name: str) -> None:
    model = Holder(FUNCTIONS[name]).eval()
    program = portrt.compile(
        model,
        inputs=[torch.randn(4, 3, 2, 3)],
        dynamic_shapes=({0: Dim("n", min=1, max=9)},),
        engines="onnxruntime",
        min_block_size=1,
        require_full_compilation=True,
        output_format="exported_program",
    )
    module = program.module()

    assert len(list(engine_calls(program))) == 1
    for rows in (4, 1, 9):
        x = torch.randn(rows, 3, 2, 3)
        assert_same(module(x), model(x))


@pytest.mark.parametrize(
    "function",
    [
        written_before,
        lambda m, x: x[:, x[0, :, 0, 0] > 0],
        lambda m, x: x[:, x[0, :, 0, 0] > 0, :, x[0, 0, 0] > 0],
        lambda m, x: x * x.sum().item(),
        lambda m, x: torch.nn.functional.pad(x, (torch.randint(3, ()).item(), 0)),
    ],
    ids=["written", "an input's mask", "two of them", "an input's number", "random"],
)
def test_what_is_not_constant_stays_data(function: Any) -> None:
    program = capture(Holder(function).eval(), (torch.randn(4, 3, 2, 3),))

    assert constant_data(program) is program


def test_masks_of_an_input_beside_constants_stay_in_pytorch_with_their_numbers() -> None:
    def both(m: Any, x: torch.Tensor) -> Any:
        picked = x[:, 0, 0] > 0
        rows = x[picked[:, 0], :, :, m.places[:1]]
        return x[:, picked[0], :, m.places[:1]], rows, x.relu() + 1

    model = Holder(both).eval()
    x = torch.randn(4, 3, 2, 3)
    program = portrt.compile(model, inputs=[x], engines="onnxruntime", min_block_size=1)
    for seed in range(3):
        x = torch.randn(4, 3, 2, 3, generator=torch.Generator().manual_seed(seed))
        assert_same(program(x), model(x))


def test_what_follows_from_a_number_is_gone_and_the_program_is_left_as_it_was() -> None:
    program = torch.export.export(Holder(padded), (torch.randn(4, 3, 2, 3),))
    before = str(program)
    changed = constant_data(program)

    assert str(program) == before
    targets = {node.target for node in changed.graph.nodes}
    assert aten._local_scalar_dense.default not in targets
    assert aten._assert_scalar.default not in targets
    lowered = changed.run_decompositions({})
    assert not any(data_sizes.symbols_of(node.meta.get("val")) for node in lowered.graph.nodes)
