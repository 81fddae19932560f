"""A lowering pass of your own: it changes the graph before it is cut into blocks."""

import torch

import portrt

aten = torch.ops.aten


def silu_by_tanh(module: torch.fx.GraphModule) -> None:
    """x * sigmoid(x) as h * tanh(h) + h with h = x / 2: the same numbers from other operators."""
    for node in list(module.graph.nodes):
        if node.target is aten.silu.default:
            with module.graph.inserting_before(node):
                half = module.graph.call_function(aten.mul.Tensor, (node.args[0], 0.5))
                bent = module.graph.call_function(aten.tanh.default, (half,))
                product = module.graph.call_function(aten.mul.Tensor, (half, bent))
                total = module.graph.call_function(aten.add.Tensor, (product, half))
            node.replace_all_uses_with(total)


model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.SiLU(), torch.nn.Linear(32, 4)).eval()
x = torch.randn(5, 16)
compiled = portrt.compile(model, inputs=[x], engines="onnxruntime", passes=[silu_by_tanh])
torch.testing.assert_close(compiled(x), model(x))


def wrong(module: torch.fx.GraphModule) -> None:
    for node in module.graph.nodes:
        if node.target is aten.silu.default:
            node.target = aten.relu.default


try:
    portrt.compile(model, inputs=[x], engines="onnxruntime", passes=[wrong])
except portrt.errors.CheckError as err:
    print(err)
