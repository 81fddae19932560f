"""Negative indices are an error where PyTorch has one; what cannot be negative is left alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
import pytest
import tiny
import torch
from torch import Tensor, nn

import portrt
from portrt.errors import EngineError

F = torch.nn.functional
Function = Callable[[Tensor, Tensor], Tensor]

REFUSING: dict[str, Function] = {
    "embedding": lambda x, i: F.embedding(i[0], x),
    "index_select": lambda x, i: torch.index_select(x, 0, i[0]),
    "gather": lambda x, i: torch.gather(x, 0, i),
    "scatter": lambda x, i: x.scatter(0, i, 1.0),
    "scatter of a tensor": lambda x, i: x.scatter(0, i, x[:2]),
    "scatter_add": lambda x, i: x.scatter_add(0, i, x[:2]),
    "scatter_reduce": lambda x, i: x.scatter_reduce(0, i, x[:2], "amax"),
    "index_add": lambda x, i: x.index_add(0, i[0], x[:3]),
    "index_copy": lambda x, i: x.index_copy(0, i[0], x[:3]),
    "embedding_bag": lambda x, i: F.embedding_bag(i, x),
}
COUNTING: dict[str, Function] = {
    "index": lambda x, i: x[i[0]],
    "index_put": lambda x, i: x.index_put((i[0],), x[:3]),
    "take": lambda x, i: x.take(i),
    "take_along_dim": lambda x, i: torch.take_along_dim(x, i, 0),
}
NEVER_NEGATIVE: dict[str, Function] = {
    "argmax": lambda x, i: torch.index_select(x, 0, x.argmax(0)),
    "clamp": lambda x, i: torch.index_select(x, 0, i[0].clamp(0, 4)),
    "topk": lambda x, i: torch.gather(x, 0, x.topk(2, 0)[1]),
    "arange": lambda x, i: torch.index_select(x, 0, torch.arange(3) * 2),
    "remainder": lambda x, i: torch.index_select(x, 0, i[0].abs()),
}
X, GOOD = torch.arange(15.0).reshape(5, 3), torch.tensor([[0, 4, 2], [3, 1, 0]])


class Called(nn.Module):
    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor, i: Tensor) -> Tensor:
        return self.function(x, i) * 2


def compiled(function: Function) -> Any:
    return portrt.compile(
        Called(function).eval(),
        inputs=[X, GOOD],
        engines="onnxruntime",
        min_block_size=1,
        require_full_compilation=True,
        output_format="exported_program",
    )


@pytest.mark.parametrize("name", REFUSING)
def test_a_negative_index_is_an_error(name: str) -> None:
    module = compiled(REFUSING[name]).module()

    torch.testing.assert_close(module(X, GOOD), REFUSING[name](X, GOOD) * 2)
    for wrong in (-1, -5, -100, 5):
        index = GOOD.clone()
        index[0, 1] = wrong
        with pytest.raises((IndexError, RuntimeError)):
            REFUSING[name](X, index)
        with pytest.raises(EngineError):
            module(X, index)


@pytest.mark.parametrize("name", COUNTING)
def test_where_pytorch_counts_from_the_end_the_engine_does(name: str) -> None:
    module = compiled(COUNTING[name]).module()

    index = torch.tensor([[0, -1, 2], [-5, 1, 0]])
    torch.testing.assert_close(module(X, index), COUNTING[name](X, index) * 2)


@pytest.mark.parametrize("name", NEVER_NEGATIVE)
def test_an_index_that_cannot_be_negative_costs_nothing(name: str) -> None:
    program = compiled(NEVER_NEGATIVE[name])

    call = tiny.call_of(program)
    data = call.blobs[call.engine("onnxruntime")["data"]["blob"]]
    model = onnx.load_model_from_string(data.numpy().tobytes())
    assert "BitwiseAnd" not in {node.op_type for node in model.graph.node}
    torch.testing.assert_close(program.module()(X, GOOD), NEVER_NEGATIVE[name](X, GOOD) * 2)
