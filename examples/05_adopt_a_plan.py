"""A program of an engine that was built elsewhere, with the model beside it for other machines.

Here TensorRT-RTX builds the plan, because it needs no GPU. A plan that trtexec or TensorRT's Python
interface made is adopted in the same way: from_plan("model.plan", ...).
"""

import tempfile
import warnings
from pathlib import Path

import torch

import portrt

model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.GELU(), torch.nn.Linear(32, 4)).eval()
x = portrt.Input(min_shape=(1, 16), opt_shape=(8, 16), max_shape=(64, 16))
folder = Path(tempfile.mkdtemp())

built = portrt.compile(model, inputs=[x], engines="tensorrt_rtx", output_format="exported_program")
torch.export.save(built, folder / "built.pt2")
portrt.files.extract(folder / "built.pt2", "plan", folder / "model.plan")

# The names are those of the plan's bindings. With the model it also runs where the plan cannot.
program = portrt.from_plan(
    folder / "model.plan",
    inputs={"input": x},
    source=model,
    output_names=["linear_1"],
    output_format="exported_program",
)
torch.export.save(program, folder / "adopted.pt2")
print(portrt.files.check(folder / "adopted.pt2", "sm=89,tensorrt_rtx=1.7").outcome)

loaded, batch = torch.export.load(folder / "adopted.pt2").module(), torch.randn(3, 16)
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    torch.testing.assert_close(loaded(batch), model(batch))
print(*(warning.message for warning in said))

# Without the model the shapes of the outputs are told by a function, as for register_fake.
alone = portrt.from_plan(
    folder / "model.plan",
    inputs={"input": x},
    outputs=lambda x: {"linear_1": x.new_empty(x.shape[0], 4)},
)
try:
    alone(batch)
except portrt.errors.NoUsableEngineError as err:
    print(err)
