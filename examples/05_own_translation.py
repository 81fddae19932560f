"""A custom operator with a translation to ONNX of your own: it goes into the engine."""

import torch
from onnxscript import opset23 as op

import portrt


@torch.library.custom_op("examples::soft_clamp", mutates_args=())
def soft_clamp(x: torch.Tensor, limit: float) -> torch.Tensor:
    return limit * torch.tanh(x / limit)


@soft_clamp.register_fake
def _(x: torch.Tensor, *_: float) -> torch.Tensor:
    return torch.empty_like(x)


def soft_clamp_to_onnx(x, limit):  # ONNX values in and out, attributes as Python numbers
    bound = op.CastLike(limit, x)
    return op.Mul(bound, op.Tanh(op.Div(x, bound)))


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = torch.nn.Linear(16, 32), torch.nn.Linear(32, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.after(soft_clamp(self.before(x), 0.5)))


model, x = Model().eval(), torch.randn(5, 16)
compiled = portrt.compile(
    model,
    inputs=[x],
    engines="onnxruntime",
    min_block_size=1,
    translations={torch.ops.examples.soft_clamp.default: soft_clamp_to_onnx},
    require_full_compilation=True,
)
torch.testing.assert_close(compiled(x), model(x))
print(*portrt.runtime.report(compiled), sep="\n")
