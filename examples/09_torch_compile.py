"""Run a model in engines with torch.compile: weights are shared, new sizes become a range."""

import torch

# Nothing of portrt need be imported: torch finds backend="portrt" by its entry point. The function
# itself works as well, where portrt is on the path but not installed.
from portrt.compiler.torch_compile import portrt_backend

model = torch.nn.Sequential(
    torch.nn.Linear(8, 16), torch.nn.LayerNorm(16), torch.nn.GELU(), torch.nn.Linear(16, 4)
).eval()
compiled = torch.compile(model, backend=portrt_backend, options={"engines": "onnxruntime"})

with torch.no_grad():  # engines have no gradients
    for rows in (2, 5, 9):  # the second size compiles an engine for all that follow
        x = torch.randn(rows, 8)
        torch.testing.assert_close(compiled(x), model(x))

    model[0].weight.mul_(2)  # seen at the next call
    torch.testing.assert_close(compiled(x), model(x))
    print(compiled(x))
