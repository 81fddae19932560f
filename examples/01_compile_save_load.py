"""Compile with a dynamic batch, save, load, and run on another batch size."""

import tempfile
from pathlib import Path

import torch

import portrt

model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.GELU(), torch.nn.Linear(64, 8)).eval()
x = portrt.Input(min_shape=(1, 64), opt_shape=(8, 64), max_shape=(256, 64))

program = portrt.compile(
    model,
    ir="dynamo",
    inputs=[x],
    enabled_precisions={torch.half},  # or precision="fp16"
    min_block_size=1,
    use_python_runtime=True,
    output_format="exported_program",
)
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "model.pt2"
    torch.export.save(program, path)
    loaded = torch.export.load(path).module()
    batch = torch.randn(3, 64)
    torch.testing.assert_close(loaded(batch), model(batch), rtol=1e-2, atol=1e-2)
    print("engines in the file:", [e["backend"] for e in portrt.inspect(path).blocks[0].engines])
print(*portrt.runtime.report(program), sep="\n")
