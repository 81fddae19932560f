"""Group norms in ONNX Runtime's engines, which has no kernel for them."""

from __future__ import annotations

from typing import Any

import onnx
import pytest
import tiny
import torch
from torch import nn
from torch.export import Dim

import portrt


def compiled(model: nn.Module, x: torch.Tensor, **options: Any) -> Any:
    return portrt.compile(
        model.eval(),
        inputs=[x],
        engines="onnxruntime",
        min_block_size=1,
        output_format="exported_program",
        require_full_compilation=True,
        **options,
    )


def kinds(program: Any) -> list[str]:
    call = tiny.call_of(program)
    data = call.blobs[call.engine("onnxruntime")["data"]["blob"]].numpy().tobytes()
    return [node.op_type for node in onnx.ModelProto.FromString(data).graph.node]


@pytest.mark.parametrize("shape", [(2, 64), (2, 64, 7), (3, 64, 5, 6), (1, 64, 2, 3, 4)])
@pytest.mark.parametrize("affine", [True, False])
def test_numbers_are_those_of_eager(shape: tuple[int, ...], affine: bool) -> None:
    torch.manual_seed(0)
    norm = nn.GroupNorm(8, 64, eps=1e-3, affine=affine)
    for tensor in norm.parameters():
        nn.init.normal_(tensor)
    model = nn.Sequential(norm, nn.ReLU())
    x = torch.randn(shape) * 3 + 2
    program = compiled(model, x)
    assert "InstanceNormalization" in kinds(program)
    assert "GroupNormalization" not in kinds(program)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), model(x), rtol=1e-5, atol=1e-5)


def test_every_dynamic_size() -> None:
    model = nn.Sequential(nn.GroupNorm(4, 8), nn.SiLU())
    axes = {0: Dim("batch", min=1, max=9), 2: Dim("height", max=99), 3: Dim("width", max=99)}
    program = compiled(model, torch.randn(2, 8, 6, 5), dynamic_shapes=({**axes},))
    with torch.no_grad():
        for shape in ((2, 8, 6, 5), (1, 8, 9, 3), (5, 8, 2, 31)):
            x = torch.randn(shape)
            torch.testing.assert_close(program.module()(x), model(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rank", [2, 3, 4])
def test_float16_is_computed_in_float32(rank: int) -> None:
    norm = nn.GroupNorm(4, 8).half()
    nn.init.normal_(norm.weight)
    model, x = nn.Sequential(norm, nn.ReLU()), torch.randn(2, 8, *[6] * (rank - 2)).half()
    program = compiled(model, x)
    assert "InstanceNormalization" in kinds(program)
    with torch.no_grad():
        for call in (x, x * 0.5 + 1000):
            wanted = model.float()(call.float()).half()
            torch.testing.assert_close(program.module()(call), wanted, rtol=2e-3, atol=1e-2)
