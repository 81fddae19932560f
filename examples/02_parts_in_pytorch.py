"""A custom operator has no ONNX translation: it stays in PyTorch, between two engines."""

import torch

import portrt


@torch.library.custom_op("examples::clamped_square", mutates_args=())
def clamped_square(x: torch.Tensor) -> torch.Tensor:
    return (x * x).clamp(max=4.0)


@clamped_square.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = torch.nn.Linear(16, 32), torch.nn.Linear(32, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.after(clamped_square(torch.relu(self.before(x)))), dim=-1)


model, x = Model().eval(), torch.randn(5, 16)
options = {"inputs": [x], "engines": "onnxruntime", "min_block_size": 1}
portrt.compile(model, **options, dryrun=True)  # prints the blocks and the reason, builds nothing
compiled = portrt.compile(model, **options)
torch.testing.assert_close(compiled(x), model(x))
print(*portrt.runtime.report(compiled), sep="\n")
