"""Run a script written for Torch-TensorRT: the import is the only line that changes."""

import io

import torch

import portrt.torch_tensorrt as torch_tensorrt

model = torch.nn.Sequential(
    torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4), torch.nn.Softmax(-1)
).eval()
x = torch_tensorrt.Input(
    min_shape=(1, 8), opt_shape=(4, 8), max_shape=(32, 8), dtype=torch_tensorrt.dtype.float32
)
compiled = torch_tensorrt.compile(
    model,
    ir="dynamo",
    inputs=[x],
    enabled_precisions={torch.float32},
    min_block_size=1,
    torch_executed_ops={"torch.ops.aten._softmax.default", "torch.ops.aten.softmax.int"},
    use_python_runtime=True,
    engines="onnxruntime",  # an option of portrt; without it, every backend that can build here
)

with torch_tensorrt.runtime.enable_cudagraphs(compiled) as graphed:  # of TensorRT engines
    y = graphed(torch.randn(3, 8))

file = io.BytesIO()  # or a path
torch_tensorrt.save(compiled, file, output_format="exported_program", inputs=[torch.randn(3, 8)])
file.seek(0)
loaded = torch_tensorrt.load(file).module()
z = torch.randn(7, 8)
torch.testing.assert_close(loaded(z), model(z))
print(loaded(z))
