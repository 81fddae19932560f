"""Models at opset 17: ONNX Runtime, which refuses what the opset does not have, is the oracle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from portrt.compiler.capture import capture
from portrt.compiler.convert import onnx_from_block
from portrt.compiler.convert.opset_17 import to_opset_17
from portrt.compiler.lower import lower
from portrt.compiler.options.settings import Settings
from portrt.compiler.partition import partition
from portrt.errors import ConvertError
from portrt.verdict import YES
from portrt.weights import WeightsImage, image_from_tensors

BATCH = torch.export.Dim("batch", min=1, max=16)


class Function(torch.nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(x)


def at_opset_17(function: Callable[..., Any], x: torch.Tensor) -> onnx.ModelProto:
    """A function of one tensor without weights, its first dimension dynamic."""
    captured = capture(Function(function), (x,), None, dynamic_shapes=({0: BATCH},), strict=False)
    plan = partition(lower(captured), Settings(min_block_size=1), lambda _: YES, {}, {})
    (block,) = plan.blocks
    image = WeightsImage(image_from_tensors(plan.tensors))
    return onnx.load_from_string(onnx_from_block(block, plan.tensors, image, 17).data)


def run(model: onnx.ModelProto, x: torch.Tensor) -> np.ndarray[Any, Any]:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    found: np.ndarray[Any, Any] = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    return found


FUNCTIONS = {
    "mean": lambda x: x.mean(1),
    "mean_of_two": lambda x: x.mean((1, 2), keepdim=True),
    "amax": lambda x: x.amax(-1),
    "amin": lambda x: x.amin((0, 1)),
    "prod": lambda x: x.prod(2),
    "sum": lambda x: x.sum((1, 2)),
    "norm": lambda x: torch.linalg.vector_norm(x, dim=-1),
    "norm_1": lambda x: x.norm(p=1, dim=1),
    "logsumexp": lambda x: x.logsumexp(1),
    "split": lambda x: sum(x.split(2, dim=1)),
    "chunk": lambda x: x.chunk(3, dim=2)[1] * 2,
    "pad": lambda x: torch.nn.functional.pad(x, (1, 2), value=3.0),
    "interpolate": lambda x: torch.nn.functional.interpolate(x, scale_factor=2.0),
    "sizes": lambda x: x.reshape(x.shape[0] * 4, 6) + torch.arange(x.shape[0] * 4)[:, None],
    "layer_norm": lambda x: torch.nn.functional.layer_norm(x, (6,)),
    "softmax": lambda x: x.softmax(1),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_it_is_valid_and_gives_the_numbers_of_pytorch(name: str) -> None:
    x = torch.rand(3, 4, 6, generator=torch.Generator().manual_seed(0)) + 0.5
    model = at_opset_17(FUNCTIONS[name], x)
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [17]
    for given in (x, torch.cat([x, x])):
        wanted = FUNCTIONS[name](given).numpy()
        np.testing.assert_allclose(run(model, given), wanted, rtol=1e-5, atol=1e-5)


def test_no_shape_names_a_part_of_the_dimensions() -> None:
    """The parser of TensorRT 8.6 overlooks `start` and `end`, and takes all dimensions."""
    model = at_opset_17(FUNCTIONS["sizes"], torch.ones(3, 4, 6))
    shapes = [node for node in model.graph.node if node.op_type == "Shape"]
    assert shapes
    assert not any(node.attribute for node in shapes)


def test_what_has_no_form_is_an_error_with_the_node() -> None:
    with pytest.raises(ConvertError, match="opset 17: BitwiseAnd"):
        at_opset_17(lambda x: x.int() & 3, torch.ones(3, 4, 6))


def test_unequal_parts_have_no_form() -> None:
    import onnx_ir

    text = """<ir_version: 8, opset_import: ["" : 18]>
    agraph (float[5, 4] x) => (float[2, 4] y) { y, z, w = Split<axis=0, num_outputs=3>(x) }"""
    model = onnx_ir.from_proto(onnx.parser.parse_model(text))
    with pytest.raises(ValueError, match="Split"):
        to_opset_17(model)
