"""Rows whose ONNX model is rewritten for TensorRT-RTX: ONNX Runtime gives eager's numbers with it.

The rewritten model runs where the one of torch.onnx would; test_operators.py holds that one to
eager's numbers.
"""

from __future__ import annotations

from typing import Any
from unittest import mock

import onnx
import pytest

from ops.case import Case
from ops.judge import Outcome, judge
from ops.tables import ALL_CASES
from portrt.compiler.backends.tensorrt.build import largest_shapes, profiles_of
from portrt.compiler.backends.tensorrt.rewrites import rewritten
from portrt.compiler.building import engines
from portrt.compiler.convert import OnnxModel, onnx_from_block
from portrt.compiler.plan import Block

_OPERATORS = (
    "addmm.default",
    "amax.default",
    "amin.default",
    "bitwise_and.Scalar",
    "bitwise_and.Tensor",
    "bitwise_not.default",
    "bitwise_or.Scalar",
    "bitwise_or.Tensor",
    "bitwise_xor.Scalar",
    "bitwise_xor.Tensor",
    "bmm.default",
    "col2im.default",
    "diagonal.default",
    "embedding_dense_backward.default",
    "index_put.default",
    "max_pool2d_with_indices.default",
    "max_pool2d_with_indices_backward.default",
    "max_pool3d_with_indices.default",
    "mm.default",
    "native_layer_norm.default",
    "native_layer_norm_backward.default",
    "scatter_add.default",
    "scatter_reduce.two",
)
_NOT_REWRITTEN = (
    # Its indices have fewer rows than what they point into.
    "aten.scatter_add.default-f32-smaller index",
    # There is no rule for scatter reductions of bool.
    "aten.index_put.default-bool-int32 rows True",
)
_DTYPES = ("f32", "i64", "i32", "bool")
_ROWS = [
    case
    for case in ALL_CASES
    if case.op.removeprefix("aten.") in _OPERATORS
    and case.variant.partition("-")[0] in _DTYPES
    and not case.stays
    and str(case) not in _NOT_REWRITTEN
]
_PER_PROGRAM = 40
_REFUSED = ("BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "Col2Im")


def refused(model: OnnxModel) -> list[str]:
    """Nodes that the parser of TensorRT-RTX does not take."""
    nodes = onnx.load_from_string(model.data).graph.node
    return [
        node.name
        for node in nodes
        if node.op_type in _REFUSED
        or (node.op_type in ("MaxPool", "LayerNormalization") and sum(map(bool, node.output)) > 1)
        or any(item.name == "reduction" and item.s != b"none" for item in node.attribute)
    ]


@pytest.fixture(scope="module")
def outcomes() -> dict[Case, Outcome]:
    def convert(block: Block, *args: Any) -> OnnxModel:
        model = onnx_from_block(block, *args)
        changed = rewritten(model, "tensorrt_rtx", largest_shapes(profiles_of(block)))
        assert refused(changed) == []
        return changed

    with mock.patch.object(engines, "onnx_from_block", convert):
        found = {}
        for start in range(0, len(_ROWS), _PER_PROGRAM):
            found.update(judge(_ROWS[start : start + _PER_PROGRAM]))
    return found


@pytest.mark.parametrize("case", _ROWS, ids=str)
def test_row(case: Case, outcomes: dict[Case, Outcome]) -> None:
    assert not outcomes[case].wrong
    assert outcomes[case].engine, outcomes[case].reason
