"""lower: each pass, and that the meaning stays."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from harness import assert_same
from models import CASES, lambda_module
from torch.export import Dim, ExportedProgram

from portrt.compiler.lower import lower
from portrt.compiler.lower.drop_metadata_asserts import drop_metadata_asserts
from portrt.compiler.lower.hoist_sizes import hoist_sizes
from portrt.compiler.lower.view_to_reshape import view_to_reshape
from portrt.compiler.options.settings import Settings
from portrt.graphs.nested import graph_modules

aten = torch.ops.aten


def exported(name: str) -> ExportedProgram:
    case = CASES[name]
    args, kwargs = case.arguments()[0]
    with torch.no_grad():
        return torch.export.export(case.model(), args, kwargs, dynamic_shapes=case.dynamic_shapes)


def targets(program: ExportedProgram) -> list[Any]:
    return [
        node.target
        for module in program.graph_module.modules()
        if isinstance(module, torch.fx.GraphModule)
        for node in module.graph.nodes
    ]


@pytest.mark.parametrize(
    "name", ["transformer_layer", "conv_dynamic_size", "batch_norm_training", "cond", "even_batch"]
)
def test_lowering_keeps_the_numbers(name: str) -> None:
    case = CASES[name]
    lowered = lower(exported(name)).module()
    for args, kwargs in case.arguments():
        model = case.model()
        with torch.no_grad():
            assert_same(lowered(*args, **kwargs), model(*args, **kwargs), 1e-5, 1e-5)
        if case.train:
            break  # the second call depends on the first


def test_the_program_itself_is_not_changed() -> None:
    program = exported("transformer_layer")
    before = str(program.graph)
    lower(program)

    assert str(program.graph) == before


def test_attention_norms_and_gelu_stay_whole() -> None:
    found = targets(lower(exported("transformer_layer")))

    assert aten.scaled_dot_product_attention.default in found
    assert aten.layer_norm.default in found
    assert aten.gelu.default in found


def test_a_training_batch_norm_does_not_stay_whole() -> None:
    """torch.onnx would translate it to one that does not train."""
    found = targets(lower(exported("batch_norm_training")))

    assert not [target for target in found if "batch_norm" in str(target)]


def test_asserts_about_metadata_are_dropped_in_nested_graphs_too() -> None:
    def branches(x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, lambda x: x * 3, lambda x: x * 2, (x.double(),))

    program = torch.export.export(lambda_module(branches)(), (torch.ones(3),))
    branch = program.graph_module.true_graph_0.graph
    x = next(iter(branch.nodes))
    with branch.inserting_after(x):
        branch.call_function(aten._assert_tensor_metadata.default, (x,), {"dtype": torch.float64})
    assert aten._assert_tensor_metadata.default in targets(program)
    for module in graph_modules(program.graph_module):
        drop_metadata_asserts(module)

    assert aten._assert_tensor_metadata.default not in targets(program)


def test_views_become_reshapes_in_nested_graphs_too() -> None:
    def branches(x: torch.Tensor) -> torch.Tensor:
        return torch.cond(
            x.sum() > 0, lambda x: x.view(6) + 1, lambda x: x.view(6) * 2, (x.view(3, 2),)
        )

    program = torch.export.export(lambda_module(branches)(), (torch.ones(2, 3),))
    before = targets(program).count(aten.view.default)
    for module in graph_modules(program.graph_module):
        view_to_reshape(module)

    assert before == 3
    assert targets(program).count(aten.reshape.default) == 3
    assert aten.view.default not in targets(program)


def test_sizes_of_intermediate_tensors_are_computed_from_inputs() -> None:
    def grown(x: torch.Tensor) -> torch.Tensor:
        y = torch.cat([x, x, x[:1]])
        return y + torch.arange(y.shape[0])

    dims = ({0: Dim("n", min=2, max=9)},)
    program = torch.export.export(lambda_module(grown)(), (torch.ones(4),), dynamic_shapes=dims)
    graph_module = program.run_decompositions({}).graph_module
    cat = next(node for node in graph_module.graph.nodes if node.target is aten.cat.default)
    with graph_module.graph.inserting_after(cat):
        size = graph_module.graph.call_function(aten.sym_size.int, (cat, 0))
    size.meta["val"] = cat.meta["val"].shape[0]
    arange = next(node for node in graph_module.graph.nodes if "arange" in str(node.target))
    arange.args = (size, *arange.args[1:])
    hoist_sizes(graph_module)

    read = [node for node in graph_module.graph.nodes if node.target is aten.sym_size.int]
    assert {node.args[0].op for node in read} == {"placeholder"}
    x = torch.randn(6)
    assert_same(graph_module(x), (grown(x),))


def test_a_size_that_depends_on_data_is_left_where_it_is() -> None:
    program = lower(exported("nonzero"))

    assert_same(
        program.module()(torch.tensor([[1.0, -1, 2, 0]])),
        CASES["nonzero"].model()(torch.tensor([[1.0, -1, 2, 0]])),
        1e-5,
        1e-5,
    )


def test_a_model_that_torch_fails_to_decompose_is_lowered_whole(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """torch's decomposition of take reads a 0-d index."""
    take = lambda_module(lambda x, i: torch.take(x * 2, i).tanh())()
    args = (torch.randn(3), torch.tensor(1))
    lowered = lower(torch.export.export(take, args))

    assert "fails to decompose" in caplog.text
    assert_same(lowered.module()(*args), take(*args), 1e-6, 1e-6)


def test_a_batch_norm_layer_stays_one_node() -> None:
    """Engines multiply it into the convolution before it; taken apart it is five nodes."""
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).eval()
    program = torch.export.export(model, (torch.ones(2, 3, 8, 8),))
    targets = [node.target for node in lower(program).graph.nodes]
    assert torch.ops.aten._native_batch_norm_legit_no_training.default in targets
    assert torch.ops.aten.rsqrt.default not in targets


def test_onnx_operators_of_torch_are_taken_apart_into_plain_ones() -> None:
    """A model that calls them needs no translation, nor torch.onnx where its file is loaded."""
    import torch.onnx.ops

    class Model(torch.nn.Module):
        def forward(self, q: torch.Tensor, kv: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
            turned = torch.onnx.ops.rotary_embedding(q, angle.cos(), angle.sin())
            found, *_ = torch.onnx.ops.attention(turned, kv, kv, is_causal=True)
            return found

    torch.manual_seed(0)
    inputs = (torch.randn(2, 4, 6, 8), torch.randn(2, 2, 6, 8), torch.randn(2, 6, 4))
    lowered = lower(torch.export.export(Model(), inputs))
    assert not any(str(target).startswith("onnx.") for target in targets(lowered))
    torch.testing.assert_close(lowered.module()(*inputs), Model()(*inputs))


def test_what_a_translation_takes_is_not_taken_apart() -> None:
    class Model(torch.nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            one = torch.ones(())
            return torch._scaled_mm(a, b.t(), one, one, out_dtype=torch.float32)

    inputs = tuple(torch.randn(16, 16).to(torch.float8_e4m3fn) for _ in range(2))
    program = torch.export.export(Model(), inputs)
    scaled = torch.ops.aten._scaled_mm.default
    assert scaled not in targets(lower(program))
    settings = Settings.from_options({"translations": {scaled: lambda *operands: operands[0]}})
    assert scaled in targets(lower(program, settings))


def test_int8_weights_are_converted_before_they_are_transposed() -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("weight", torch.arange(-6, 6, dtype=torch.int8).reshape(3, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.weight.reshape(4, 3).t().to(torch.float32)

    x = torch.randn(2, 3)
    lowered = lower(torch.export.export(Model(), (x,)))
    weight = next(node for node in lowered.graph.nodes if "weight" in node.name)
    (first,) = weight.users
    assert first.target is torch.ops.aten._to_copy.default
    assert torch.equal(lowered.module()(x), Model()(x))
