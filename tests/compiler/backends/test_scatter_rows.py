"""Rows written at positions of an inner dimension; the oracle is eager PyTorch."""

from __future__ import annotations

from typing import Any

import onnx
import torch
from torch import nn
from torch.export import Dim

import portrt
from portrt.compiler.backends.onnxruntime.updates import updates_in_place
from portrt.format.manifest import decode
from portrt.runtime.calls import engine_calls, manifests_of

# Name -> shape of the tensor and the written dimension.
DIRECT = {
    "inner": ((3, 16, 8), 1),
    "third": ((2, 3, 16, 8), 2),
    "fourth": ((2, 1, 3, 16, 8), 3),
    "wide": ((2, 16, 2, 5), 1),
    "one": ((1, 16, 8), 1),
}
TRANSPOSED = {"last": ((8, 16), 1), "thin": ((3, 16, 7), 1), "many": ((1025, 16, 8), 1)}
CASES = {**DIRECT, **TRANSPOSED}


class Writes(nn.Module):
    """Writes at `at`, which may count from the end; adds at `at`; and with a second index."""

    def forward(self, at: torch.Tensor, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        found = {}
        for name, (shape, axis) in CASES.items():
            x = torch.arange(torch.Size(shape).numel(), dtype=torch.float32).reshape(shape)
            x = x + batch.sum()
            place = (*[slice(None)] * axis, at)
            rows = x[place].cos() + 100
            x[place] = rows
            found[name] = x
        added = torch.zeros(3, 16, 8) + batch.sum()
        found["added"] = added.index_add(1, at % 16, added[:, at] + 1)
        found["scalar"] = added.index_fill(1, at % 16, 7.0)
        found["two"] = added.clone()
        found["two"][:, at, at % 8] = 1.0
        deep = batch[:, None, None].expand(-1, 16, 8) * 2
        found["dynamic outer size"] = deep.clone()
        found["dynamic outer size"][:, at] = deep[:, at] + 5
        return found


def scattered(program: Any) -> list[str]:
    """The operators that make what each ScatterND writes into."""
    (call,) = engine_calls(program)
    names = {spec.arg.name: spec.target for spec in program.graph_signature.input_specs}
    (engine,) = decode(manifests_of(program)[0]).engines
    data = program.constants[names[call.args[1][engine.data.index].name]]
    graph = onnx.load_model_from_string(data.numpy().tobytes()).graph
    makers = {name: node.op_type for node in graph.node for name in node.output}
    return [makers[node.input[0]] for node in graph.node if node.op_type == "ScatterND"]


def test_rows_are_eagers_and_written_without_transposes() -> None:
    model, at, batch = Writes().eval(), torch.tensor([0, 5, 15]), torch.randn(4)
    program = portrt.compile(
        model,
        inputs=[at, batch],
        dynamic_shapes=({0: Dim("rows", max=16)}, {0: Dim("batch", max=8)}),
        engines="onnxruntime",
        min_block_size=1,
        output_format="exported_program",
    )
    assert scattered(program).count("Transpose") >= len(TRANSPOSED)
    assert len(scattered(program)) - scattered(program).count("Transpose") >= len(DIRECT)
    module = program.module()
    for places in ([0, 5, 15], [7], [-1, 3], list(range(16)), [-16, 2]):
        at, batch = torch.tensor(places), torch.randn(len(places) % 5 + 1)
        torch.testing.assert_close(module(at, batch), model(at, batch))


def test_an_input_that_is_left_out_is_no_update() -> None:
    """ONNX writes it as an empty name, which no output has either."""
    graph = onnx.parser.parse_graph(
        """
        g (float[4] x, int64[1,1] i, float[1] rows, float high) => (float[4] y, float[4] z) {
            z = ScatterND (x, i, rows)
            s = ScatterND (z, i, rows)
            y = Clip (s, , high)
        }
        """
    )
    opset = onnx.helper.make_opsetid("", 23)
    data = onnx.helper.make_model(graph, opset_imports=[opset]).SerializeToString()

    assert updates_in_place(data, ["rows", "x", "i", "high"]) == [[1, 1]]
