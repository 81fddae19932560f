"""Programs whose inputs are objects of the user's, which do something when they are made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from harness import assert_same
from torch import nn
from torch.export import Dim
from torch.utils import _pytree as pytree

import portrt
from portrt.errors import InputError


class Rows:
    """As transformers' caches do, it begins with an empty tensor and appends."""

    def __init__(self, rows: torch.Tensor, scale: torch.Tensor) -> None:
        self.rows = torch.cat([torch.tensor([]).view(0, rows.shape[1]), rows])
        self.scale = scale


class Append(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor, *, kept: list[Rows], other: torch.Tensor) -> Any:
        self.calls += 1
        (old,) = kept
        rows = torch.cat([old.rows, self.linear(x).relu()])
        return rows.sum(0) * old.scale + other, [Rows(rows, old.scale)], self.calls * 1


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    pytree.register_pytree_node(
        Rows,
        lambda item: ([item.rows, item.scale], None),
        lambda leaves, _: Rows(*leaves),
        flatten_with_keys_fn=lambda item: (
            [(pytree.GetAttrKey("rows"), item.rows), (pytree.GetAttrKey("scale"), item.scale)],
            None,
        ),
        serialized_type_name="test_flat_inputs.Rows",
    )
    yield
    pytree._deregister_pytree_node(Rows)


def results(module: Any, lengths: tuple[int, ...]) -> list[Any]:
    generator = torch.Generator().manual_seed(0)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    with torch.no_grad():
        return [
            module(randn(2, 4), kept=[Rows(randn(n, 4), randn(4))], other=randn(4)) for n in lengths
        ]


def compiled() -> Any:
    torch.manual_seed(0)
    return portrt.compile(
        Append().eval(),
        inputs=[torch.randn(2, 4)],
        kwarg_inputs={"kept": [Rows(torch.randn(3, 4), torch.ones(4))], "other": torch.ones(4)},
        dynamic_shapes={"x": None, "kept": [[{0: Dim("n", min=1, max=9)}, None]], "other": None},
        engines="onnxruntime",
        min_block_size=1,
    )


def test_they_are_taken_and_given_as_by_the_model() -> None:
    torch.manual_seed(0)
    model = Append().eval()

    assert_same(results(compiled(), (1, 5, 9)), results(model, (1, 5, 9)), 1e-5, 1e-5)


def test_their_parts_have_the_names_that_torch_gives_them() -> None:
    with pytest.raises(InputError, match="input 'kept_0_rows' of the program") as caught:
        results(compiled(), (10,))
    assert "a size from 1 to 9 in dimension 0" in caught.value.expected
