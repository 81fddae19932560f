"""bfloat16 models in ONNX Runtime's engines: float32 between roundings, weights as they are."""

from __future__ import annotations

import onnx
import tiny
import torch
from onnx import TensorProto
from torch import nn

import portrt


class Tied(nn.Module):
    """Numbers looked up, multiplied, and multiplied with the table that they came from."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(64, 32)
        self.inner = nn.Linear(32, 32)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.inner(self.table(ids)))
        x = torch.cat([x[:, 1:], x[:, :1]], 1)
        return x @ self.table.weight.t()


IDS = torch.randint(0, 64, (2, 5), generator=torch.Generator().manual_seed(0))


def engine(model: nn.Module) -> tuple[torch.nn.Module, onnx.GraphProto]:
    program = portrt.compile(
        model,
        inputs=[IDS],
        engines="onnxruntime",
        require_full_compilation=True,
        output_format="exported_program",
    )
    call = tiny.call_of(program)
    data = call.blobs[call.engine("onnxruntime")["data"]["blob"]].numpy().tobytes()
    return program.module(), onnx.ModelProto.FromString(data).graph


def test_every_operator_rounds_as_in_pytorch() -> None:
    model = Tied().eval().to(torch.bfloat16)
    module, _ = engine(model)
    with torch.no_grad():
        found, wanted = module(IDS), model(IDS)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), wanted.float(), rtol=1.6e-2, atol=1.6e-2)
    rounded_once = Tied().eval()(IDS)
    assert (wanted.float() - rounded_once).abs().max() > 1e-2  # or the test would show nothing


def test_weights_are_widened_only_where_they_are_multiplied() -> None:
    """A table that is looked up, or transposed, in float32 would take twice the memory, or more."""
    _, graph = engine(Tied().eval().to(torch.bfloat16))
    weights = {t.name for t in graph.initializer if t.data_type == TensorProto.BFLOAT16}
    large = {t.name for t in graph.initializer if t.name in weights and len(t.dims) == 2}
    readers = {(node.op_type, name) for node in graph.node for name in node.input if name in large}
    assert {kind for kind, name in readers if "table" in name} == {"Gather", "Cast"}
    assert {kind for kind, name in readers if "inner" in name} == {"Cast"}
    made_by = {output: node.op_type for node in graph.node for output in node.output}
    products = [node for node in graph.node if node.op_type == "FusedMatMul"]
    assert len(products) == 2
    assert {made_by[node.input[1]] for node in products} == {"Cast"}
    assert not any(node.op_type == "Transpose" for node in graph.node)


def test_numbers_that_fill_a_tensor_are_widened_too() -> None:
    """The scales that ONNX's GroupNormalization wants are made, where a size is dynamic."""
    norm = nn.GroupNorm(3, 3, affine=False).eval()
    program = portrt.compile(
        norm,
        inputs=[torch.rand(2, 3, 4).bfloat16()],
        dynamic_shapes=({0: torch.export.Dim("n", min=1, max=8)},),
        engines="onnxruntime",
        require_full_compilation=True,
        output_format="exported_program",
    )
    x = torch.rand(5, 3, 4, generator=torch.Generator().manual_seed(0)).bfloat16()
    torch.testing.assert_close(program.module()(x), norm(x))
