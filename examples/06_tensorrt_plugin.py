"""A custom operator as a node that a TensorRT plugin runs; without the plugin it is in PyTorch.

The node carries the plugin's name, version and attributes; TensorRT's parser looks for a plugin
creator of that name. `plugins=["libmy_plugins.so"]` gives the library to the builder.
"""

import logging

import torch
from onnx.defs import OpSchema, register_schema
from onnxscript.values import Opset

import portrt

logging.basicConfig(format="%(name)s: %(message)s")  # says why an engine or a node was left out

# What the plugin is called, takes and gives, for onnxscript.
register_schema(
    OpSchema(
        "HardGate",
        "my.plugins",
        1,
        inputs=[OpSchema.FormalParameter("x", "T")],
        outputs=[OpSchema.FormalParameter("y", "T")],
        type_constraints=[("T", ["tensor(float)", "tensor(float16)"], "")],
        attributes=[
            OpSchema.Attribute("threshold", OpSchema.AttrType.FLOAT),
            OpSchema.Attribute("plugin_version", OpSchema.AttrType.STRING),
        ],
    )
)
my_plugins = Opset("my.plugins", 1)


@torch.library.custom_op("examples::hard_gate", mutates_args=())
def hard_gate(x: torch.Tensor, threshold: float) -> torch.Tensor:
    return torch.where(x > threshold, x, torch.zeros_like(x))


@hard_gate.register_fake
def _(x: torch.Tensor, *_: float) -> torch.Tensor:
    return torch.empty_like(x)


def hard_gate_to_onnx(x, threshold):
    return my_plugins.HardGate(x, threshold=threshold, plugin_version="1")


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = torch.nn.Linear(16, 32), torch.nn.Linear(32, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.after(hard_gate(self.before(x), 0.1)))


model, x = Model().eval(), torch.randn(5, 16)
compiled = portrt.compile(
    model,
    inputs=[x],
    min_block_size=1,
    translations={"examples.hard_gate": hard_gate_to_onnx},
    # plugins=["libmy_plugins.so"],
)
torch.testing.assert_close(compiled(x), model(x))
print(*portrt.runtime.report(compiled), sep="\n")
