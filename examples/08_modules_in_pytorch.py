"""Keep modules in PyTorch, by their paths or classes; the rest goes into engines."""

import torch

import portrt


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(
            torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.GELU()) for _ in range(3)
        )
        self.norm = torch.nn.LayerNorm(16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = x + layer(x)
        return self.norm(x)


model, x = Model().eval(), torch.randn(5, 16)
options = {"inputs": [x], "engines": "onnxruntime", "min_block_size": 1}
for names in ("layers.1", "layers.*", "torch.nn.modules.normalization.LayerNorm"):
    compiled = portrt.compile(model, torch_executed_modules=names, **options)
    torch.testing.assert_close(compiled(x), model(x))
    print(f"{names}: {len(portrt.runtime.report(compiled))} blocks")
