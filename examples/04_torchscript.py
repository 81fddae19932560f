"""The same program as TorchScript, for torch.jit.load."""

import tempfile
from pathlib import Path

import torch

import portrt

model, x = (
    torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()).eval(),
    torch.randn(1, 3, 8, 8),
)
program = portrt.compile(model, inputs=[x], engines="onnxruntime", output_format="exported_program")
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "model.ts"
    portrt.save(program, path, output_format="torchscript")
    torch.testing.assert_close(torch.jit.load(path)(x), model(x))
print("TorchScript gives the model's numbers")
