"""New weights without a build: a LoRA adapter merged and taken out, and a whole checkpoint."""

import copy

import torch

import portrt

model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.GELU(), torch.nn.Linear(64, 8)).eval()
x = torch.randn(5, 64)
compiled = portrt.compile(model, inputs=[x], engines="onnxruntime")

# The adapter adds a product of two thin matrices to one weight.
down, up = torch.randn(4, 64), torch.randn(64, 4)
weight = model[0].weight.detach()
adapted = copy.deepcopy(model)
adapted[0].weight = torch.nn.Parameter(weight + 0.1 * up @ down)

compiled.update_weights({"0.weight": adapted[0].weight}, strict=False)
torch.testing.assert_close(compiled(x), adapted(x), rtol=1e-4, atol=1e-4)
compiled.update_weights({"0.weight": weight}, strict=False)
torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-4)

# A checkpoint has all names; what does not fit is an error that names it, and changes nothing.
other = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.GELU(), torch.nn.Linear(64, 8)).eval()
print(compiled.update_weights(other.state_dict()))
torch.testing.assert_close(compiled(x), other(x), rtol=1e-4, atol=1e-4)
try:
    compiled.update_weights({"0.weight": torch.zeros(64, 63)})
except portrt.errors.InputError as err:
    print(err)
