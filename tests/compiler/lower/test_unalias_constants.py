"""A buffer that torch.export finds as a constant as well."""

from __future__ import annotations

import torch
from harness import assert_same

import portrt
from portrt.compiler.lower.unalias_constants import unalias_constants


class Holder:
    """Not a module: torch.export does not look into it."""

    def __init__(self) -> None:
        self.rows = torch.zeros(3, 4)


class Cached(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.holder = Holder()
        self.register_buffer("rows", self.holder.rows)
        self.linear = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
        self.holder.rows.index_copy_(0, place, self.linear(x))
        return self.holder.rows.sum(0) * 2


def arguments(place: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(1, 4), torch.tensor([place])


def test_the_constant_is_the_buffer() -> None:
    with torch.no_grad():
        program = torch.export.export(Cached().eval(), arguments(0))
    assert program.constants  # what the pass is for; else torch has mended it
    names = [node.name for node in program.graph.nodes]

    merged = unalias_constants(program)

    assert not merged.constants
    assert [node.name for node in program.graph.nodes] == names
    assert unalias_constants(merged) is merged


def test_calls_change_the_buffer_as_in_eager() -> None:
    torch.manual_seed(0)
    model = Cached().eval()
    calls = [arguments(place) for place in (0, 2, 0, 1)]
    program = portrt.compile(
        model, inputs=calls[0], engines="onnxruntime", output_format="exported_program"
    )
    module = program.module()
    found = [module(*call) for call in calls]
    with torch.no_grad():
        wanted = [model(*call) for call in calls]

    assert_same(found, wanted, rtol=1e-5, atol=1e-5)
