"""Whole numbers in ONNX Runtime's engines, whose own sums and products of them are inexact."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import tiny
import torch
from onnx import TensorProto, helper

import portrt
from portrt.compiler.backends.onnxruntime.rewrites.integer_sums import exact_integer_sums
from portrt.compiler.convert.onnx_nodes import rewritten


class Of(torch.nn.Module):
    """A function, and beside it something that every engine takes."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.function(x), x + 1


def compiled(function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> Any:
    return portrt.compile(
        Of(function),
        inputs=[x],
        dynamic_shapes=({0: torch.export.Dim("n", max=2000)},),
        engines="onnxruntime",
        min_block_size=1,
        output_format="exported_program",
    )


def numbers(dtype: torch.dtype, rows: int) -> torch.Tensor:
    """Of the whole range, so that sums wrap round."""
    torch.manual_seed(rows)
    limits = torch.iinfo(dtype)
    return torch.randint(limits.min, limits.max, (rows, 7), dtype=dtype)


SUMS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "all": lambda x: x.sum(dtype=x.dtype),
    "rows": lambda x: x.sum(0, dtype=x.dtype),
    "columns, kept": lambda x: x.sum(-1, keepdim=True, dtype=x.dtype),
    "both": lambda x: x.sum((0, 1), dtype=x.dtype),
}


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32], ids=str)
@pytest.mark.parametrize("name", SUMS)
def test_sums_are_those_of_eager(name: str, dtype: torch.dtype) -> None:
    program = compiled(SUMS[name], numbers(dtype, 5))
    assert portrt.runtime.report(program)[0].runs_as == "onnxruntime"
    for rows in (5, 1, 1999):
        x = numbers(dtype, rows)
        for found, wanted in zip(program.module()(x), Of(SUMS[name])(x), strict=True):
            assert torch.equal(found, wanted)


def test_the_largest_and_the_smallest_number() -> None:
    limits = torch.iinfo(torch.int64)
    x = torch.tensor([[limits.min, limits.max, -1, 1, 0, 2**32, -(2**32)]] * 3)
    program = compiled(SUMS["columns, kept"], x)
    assert torch.equal(program.module()(x)[0], x.sum(-1, keepdim=True))


def test_counts_stay_one_node() -> None:
    program = compiled(lambda x: (x > 2).sum(0), numbers(torch.int64, 5))
    call = tiny.call_of(program)
    data = call.blobs[call.engine("onnxruntime")["data"]["blob"]].numpy().tobytes()
    kinds = [node.op_type for node in onnx.ModelProto.FromString(data).graph.node]
    assert kinds.count("ReduceSum") == 1
    assert "Mod" not in kinds


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32], ids=str)
def test_products_of_whole_numbers_stay_in_pytorch(dtype: torch.dtype) -> None:
    x = torch.randint(-9, 9, (5, 40), dtype=dtype)
    program = compiled(lambda x: x.prod(1), x)
    assert any(node.target is torch.ops.aten.prod.dim_int for node in program.graph.nodes)
    assert torch.equal(program.module()(x)[0], x.prod(1))


def test_products_of_bools_are_in_the_engine() -> None:
    x = torch.rand(5, 3) > 0.2
    program = portrt.compile(
        Of(lambda x: x.prod(1)).eval(),
        inputs=[x],
        engines="onnxruntime",
        min_block_size=1,
        output_format="exported_program",
    )
    assert not any(node.target is torch.ops.aten.prod.dim_int for node in program.graph.nodes)
    assert torch.equal(program.module()(x)[0], x.prod(1))


def test_names_in_a_branch_are_not_those_around_it() -> None:
    """As torch.onnx names values: the graph has a val_0, and the branch takes it."""

    def value(name: str, shape: Sequence[str]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.INT64, shape)

    def branch(kind: str) -> onnx.GraphProto:
        nodes = [helper.make_node(kind, ["val_0"], ["made"], keepdims=0)]
        return helper.make_graph(nodes, kind, [], [value("made", [])])

    choice = helper.make_node(
        "If", ["go"], ["y"], then_branch=branch("ReduceSum"), else_branch=branch("ReduceMax")
    )
    go = helper.make_tensor_value_info("go", TensorProto.BOOL, [])
    nodes = [helper.make_node("Neg", ["x"], ["val_0"]), choice]
    graph = helper.make_graph(nodes, "g", [value("x", ["n"]), go], [value("y", [])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)

    data = rewritten(model.SerializeToString(), [(("ReduceSum",), exact_integer_sums)])
    session = onnxruntime.InferenceSession(data)
    x = np.array([2**62, 3, 2**62], dtype=np.int64)
    assert session.run(None, {"x": x, "go": np.array(True)})[0] == (-x).sum()
    assert session.run(None, {"x": x, "go": np.array(False)})[0] == -3
