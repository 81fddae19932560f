"""Translations, passes, plugins and modules of the user's: they work, and what is wrong is said."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from custom_ops import shifted_relu
from models import lambda_module
from onnx.defs import OpSchema, register_schema
from onnxscript import opset23 as op
from onnxscript.values import Opset
from torch import nn

import portrt
from portrt.compiler.backends import registry
from portrt.compiler.convert import NEWEST_OPSET, onnx_from_block, translation
from portrt.compiler.convert.translations import resolved
from portrt.compiler.lower import lower
from portrt.compiler.options.settings import Settings
from portrt.compiler.partition import partition
from portrt.errors import BuildError, CheckError, LowerError, SettingsError
from portrt.runtime.report import report
from portrt.weights import WeightsImage, image_from_tensors

RTX = registry.builder("tensorrt_rtx").can_build()
needs_tensorrt_rtx = pytest.mark.skipif(not RTX, reason=str(RTX))

aten = torch.ops.aten
X = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
SHIFTED_RELU = torch.ops.portrt_tests.shifted_relu.default


def compiled(model: nn.Module, x: torch.Tensor = X, **options: Any) -> Any:
    options = {"engines": "onnxruntime", "min_block_size": 1, **options}
    return portrt.compile(model.eval(), inputs=[x], output_format="exported_program", **options)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.second(shifted_relu(self.first(x), 0.25)))


def shifted_relu_to_onnx(x: Any, shift: float) -> Any:
    return op.Relu(op.Sub(x, op.CastLike(shift, x)))


def test_shifted_relu_is_what_its_translation_says() -> None:
    torch.testing.assert_close(shifted_relu(X, 0.25), torch.relu(X - 0.25))


# ---- translations -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target", [SHIFTED_RELU, torch.ops.portrt_tests.shifted_relu, "portrt_tests::shifted_relu"]
)
def test_an_operator_with_a_translation_is_in_the_engine(target: Any) -> None:
    model = Model()
    options: dict[str, Any] = {"translations": {target: shifted_relu_to_onnx}}
    program = compiled(model, require_full_compilation=True, **options)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(X), model(X))
    assert [block.runs_as for block in report(program)] == ["onnxruntime"]
    assert len(report(compiled(model))) == 2  # without it, the operator is between two engines


def test_a_translation_comes_before_that_of_torch_onnx() -> None:
    def tanh_to_onnx(x: Any) -> Any:  # no tanh: only so it is seen that this one is taken
        return op.Sinh(x)

    model = lambda_module(lambda x: torch.tanh(x) * 2)()
    options: dict[str, Any] = {"translations": {"aten.tanh": tanh_to_onnx}}
    with pytest.raises(CheckError):
        compiled(model, check="error", **options)
    program = compiled(model, check="accept", **options)
    torch.testing.assert_close(program.module()(X), torch.sinh(X) * 2)


def test_an_operator_with_a_translation_is_not_decomposed() -> None:
    def threshold_to_onnx(x: Any, threshold: float, value: float) -> Any:
        return op.Where(op.Greater(x, op.CastLike(threshold, x)), x, op.CastLike(value, x))

    model = lambda_module(lambda x: nn.functional.threshold(x, 0.1, 2.0) + 1)()
    captured = torch.export.export(model, (X,))
    options = Settings.from_options({"translations": {"aten.threshold": threshold_to_onnx}})
    for settings, whole in ((Settings(), False), (options, True)):
        targets = {node.target for node in lower(captured, settings).graph.nodes}
        assert (aten.threshold.default in targets) is whole
    program = compiled(model, translations=dict(options.translations))
    torch.testing.assert_close(program.module()(X), model(X))


def test_a_translation_that_comes_too_late_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """torch takes this operator apart whatever it is told."""
    model = lambda_module(lambda x: nn.functional.softshrink(x) + 1)()
    program = compiled(model, translations={"aten.softshrink": shifted_relu_to_onnx})
    torch.testing.assert_close(program.module()(X), model(X))
    assert "aten.softshrink.default is not used" in caplog.text


def test_a_wrong_translation_is_caught() -> None:
    def wrong(x: Any, shift: float) -> Any:
        return op.Relu(op.Add(x, op.CastLike(shift, x)))

    with pytest.raises(CheckError, match="differs from PyTorch"):
        compiled(Model(), translations={SHIFTED_RELU: wrong}, check="error")


def test_a_translation_that_fails_leaves_its_operator_in_pytorch(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(x: Any, shift: float) -> Any:
        raise ValueError("this translation is broken")

    program = compiled(Model(), translations={SHIFTED_RELU: broken})
    with torch.no_grad():
        torch.testing.assert_close(program.module()(X), Model()(X))
    assert "this translation is broken" in caplog.text
    assert len(report(program)) == 2


def test_an_engine_is_added_with_the_translation(tmp_path: Path) -> None:
    path = tmp_path / "a.pt2"
    options: dict[str, Any] = {"translations": {SHIFTED_RELU: shifted_relu_to_onnx}}
    portrt.save(compiled(Model(), **options), path)
    portrt.files.add_engine(path, "onnxruntime", min_block_size=1, **options)
    (block,) = portrt.inspect(path).blocks
    assert [engine["check"]["outputs"][0]["ok"] for engine in block.engines] == [True, True]


def test_nothing_is_cached_that_a_function_decides(tmp_path: Path) -> None:
    """A changed translation of the same name must not find the engine of the old one."""
    options: dict[str, Any] = {"cache_dir": tmp_path, "check": "off"}
    found = []
    for sign in (1.0, -1.0):

        def scaled(x: Any, shift: float, sign: float = sign) -> Any:
            return op.Mul(op.CastLike(sign, x), op.Relu(op.Sub(x, op.CastLike(shift, x))))

        program = compiled(Model(), translations={SHIFTED_RELU: scaled}, **options)
        found.append(program.module()(X))
    assert not torch.equal(found[0], found[1])
    found = []
    for factor in (1.0, 2.0):

        def add(module: torch.fx.GraphModule, factor: float = factor) -> None:
            for node in module.graph.nodes:
                if node.target is aten.mul.Tensor:
                    node.args = (node.args[0], factor)

        model = lambda_module(lambda x: torch.relu(x) * 3.0)()
        found.append(compiled(model, passes=[add], **options).module()(X))
    torch.testing.assert_close(found, [torch.relu(X), torch.relu(X) * 2])


@pytest.mark.parametrize(
    "options",
    [
        {"translations": [SHIFTED_RELU]},
        {"translations": {SHIFTED_RELU: "relu"}},
        {"translations": {"relu": shifted_relu_to_onnx}},
        {"passes": [3]},
        {"plugins": ["/nowhere/libplugins.so"]},
        {"torch_executed_modules": [3]},
    ],
    ids=[
        "translations in a list",
        "a translation to a name",
        "a translation of a name",
        "a pass that is none",
        "a plugin that is not there",
        "a module that is no name",
    ],
)
def test_values_that_cannot_be_used_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_options(options)
    assert caught.value.expected
    assert caught.value.remedy


# ---- plugins ------------------------------------------------------------------------------------


def gate_to_onnx(x: Any, shift: float) -> Any:
    if not onnx.defs.has("TestGate", "tests.plugins"):
        formal, attribute = OpSchema.FormalParameter, OpSchema.Attribute
        register_schema(
            OpSchema(
                "TestGate",
                "tests.plugins",
                1,
                inputs=[formal("x", "T")],
                outputs=[formal("y", "T")],
                type_constraints=[("T", ["tensor(float)"], "")],
                attributes=[
                    attribute("shift", OpSchema.AttrType.FLOAT),
                    attribute("plugin_version", OpSchema.AttrType.STRING),
                ],
            )
        )
    return Opset("tests.plugins", 1).TestGate(x, shift=shift, plugin_version="1")


GATE = {"portrt_tests.shifted_relu": gate_to_onnx}


def test_a_plugin_node_carries_its_domain_name_and_attributes() -> None:
    extra = resolved(Settings.from_options({"translations": GATE}).translations)
    program = torch.export.export(Model(), (X,))

    def supports(node: torch.fx.Node) -> Any:
        return translation(node, translations=extra)

    plan = partition(lower(program), Settings(min_block_size=1), supports)
    (block,) = plan.blocks
    image = WeightsImage(image_from_tensors(plan.tensors))
    model = onnx.ModelProto.FromString(
        onnx_from_block(block, plan.tensors, image, NEWEST_OPSET, extra).data
    )
    (node,) = [node for node in model.graph.node if node.domain]
    assert (node.domain, node.op_type) == ("tests.plugins", "TestGate")
    given = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    assert given == {"shift": 0.25, "plugin_version": b"1"}
    assert ("tests.plugins", 1) in {(item.domain, item.version) for item in model.opset_import}


@needs_tensorrt_rtx
def test_without_the_plugin_the_parsers_words_are_the_reason(
    caplog: pytest.LogCaptureFixture,
) -> None:
    program = compiled(Model(), engines=("tensorrt_rtx", "onnxruntime"), translations=GATE)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(X), Model()(X))
    assert "Plugin not found" in caplog.text
    assert "tests.plugins:TestGate(-1) is not a registered function/op" in caplog.text
    assert [block.runs_as for block in report(program)] == ["onnxruntime"] * 2


@needs_tensorrt_rtx
def test_a_library_that_is_none_is_refused_by_the_builder(tmp_path: Path) -> None:
    library = tmp_path / "libplugins.so"
    library.write_bytes(b"no library")
    with pytest.raises(BuildError, match=r"the plugins in .*libplugins.so cannot be loaded"):
        compiled(Model(), engines="tensorrt_rtx", plugins=library, require_engines=True)


# ---- passes -------------------------------------------------------------------------------------


def silu_by_sigmoid(module: torch.fx.GraphModule) -> None:
    for node in list(module.graph.nodes):
        if node.target is aten.silu.default:
            with module.graph.inserting_before(node):
                gate = module.graph.call_function(aten.sigmoid.default, node.args)
                product = module.graph.call_function(aten.mul.Tensor, (node.args[0], gate))
            node.replace_all_uses_with(product)


SILU = lambda_module(lambda x: nn.functional.silu(x * 2) + 1)


def test_a_pass_changes_what_is_in_the_engine(tmp_path: Path) -> None:
    program = compiled(SILU(), passes=silu_by_sigmoid)
    torch.testing.assert_close(program.module()(X), SILU()(X))
    path, onnx_path = tmp_path / "a.pt2", tmp_path / "a.onnx"
    portrt.save(program, path)
    portrt.files.extract(path, "onnx", output=onnx_path)
    kinds = {node.op_type for node in onnx.load(onnx_path).graph.node}
    assert "Sigmoid" in kinds
    assert "Swish" not in kinds


def test_passes_run_in_order_and_see_the_lowered_graph() -> None:
    seen = []

    def first(module: torch.fx.GraphModule) -> None:
        seen.append([str(node.target) for node in module.graph.nodes if node.op == "call_function"])

    def second(module: torch.fx.GraphModule) -> Any:
        seen.append("second")
        return torch.fx.passes.infra.pass_base.PassResult(module, False)

    compiled(SILU(), passes=[first, second])
    assert seen == [["aten.mul.Tensor", "aten.silu.default", "aten.add.Tensor"], "second"]


def relu_for_silu(module: torch.fx.GraphModule) -> None:
    for node in module.graph.nodes:
        if node.target is aten.silu.default:
            node.target = aten.relu.default


def test_a_pass_that_changes_the_numbers_is_caught_and_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(CheckError, match="the pass relu_for_silu"):
        compiled(SILU(), passes=[silu_by_sigmoid, relu_for_silu, lambda _: None][1:])
    program = compiled(SILU(), passes=[relu_for_silu], check="accept")
    torch.testing.assert_close(program.module()(X), torch.relu(X * 2) + 1)
    assert "the pass relu_for_silu" in caplog.text


def fails(module: torch.fx.GraphModule) -> None:
    raise KeyError("no such node")


def returns_another(module: torch.fx.GraphModule) -> torch.fx.GraphModule:
    return torch.fx.GraphModule(module, module.graph)


def renames_an_input(module: torch.fx.GraphModule) -> None:
    next(iter(module.graph.nodes)).name = "another"


def adds_an_attribute(module: torch.fx.GraphModule) -> None:
    module.register_buffer("two", torch.tensor(2.0))
    add = list(module.graph.nodes)[-2]
    with module.graph.inserting_before(add):
        add.args = (add.args[0], module.graph.get_attr("two"))


def calls_wrongly(module: torch.fx.GraphModule) -> None:
    add = list(module.graph.nodes)[-2]
    with module.graph.inserting_before(add):
        added = module.graph.call_function(aten.mm.default, (add.args[0],))
    add.args = (added, 1)


def drops_the_outputs(module: torch.fx.GraphModule) -> None:
    module.graph.output_node().args = ((),)


def changes_the_shape(module: torch.fx.GraphModule) -> None:
    output = module.graph.output_node()
    with module.graph.inserting_before(output):
        total = module.graph.call_function(aten.sum.default, output.args[0])
    output.args = ((total,),)


@pytest.mark.parametrize(
    ("graph_pass", "words"),
    [
        (fails, "KeyError: 'no such node'"),
        (returns_another, "returned another module"),
        (renames_an_input, "changed the inputs"),
        (adds_an_attribute, "'two', a get_attr"),
        (calls_wrongly, "added an invalid call: .*mm"),
        (drops_the_outputs, "changed the number of outputs"),
        (changes_the_shape, "changed dtype or shape of output 0"),
    ],
)
def test_a_pass_that_leaves_no_program_is_an_error(graph_pass: Any, words: str) -> None:
    with pytest.raises(LowerError, match=words) as caught:
        compiled(SILU(), passes=[graph_pass])
    assert graph_pass.__name__ in caught.value.happened


def test_passes_see_dynamic_sizes() -> None:
    x = portrt.Input(min_shape=(1, 8), opt_shape=(4, 8), max_shape=(16, 8))
    program = portrt.compile(
        SILU(),
        inputs=[x],
        engines="onnxruntime",
        min_block_size=1,
        passes=[silu_by_sigmoid],
        output_format="exported_program",
    )
    for batch in (1, 7):
        x = torch.randn(batch, 8)
        torch.testing.assert_close(program.module()(x), SILU()(x))


# ---- modules in PyTorch -------------------------------------------------------------------------


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.Tanh()) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


@pytest.mark.parametrize(
    ("names", "kept", "blocks"),
    [
        ("layers.1", ["linear_1", "tanh_1"], 2),
        (["layers.0", "layers.2"], ["linear", "linear_2", "tanh", "tanh_2"], 1),
        ("layers.*.1", ["tanh", "tanh_1", "tanh_2"], 3),
        ("torch.nn.modules.activation.Tanh", ["tanh", "tanh_1", "tanh_2"], 3),
    ],
)
def test_named_modules_stay_in_pytorch(names: Any, kept: list[str], blocks: int) -> None:
    program = compiled(Layers(), torch_executed_modules=names)
    operators = [n.name for n in program.graph.nodes if str(n.target).startswith("aten.")]
    assert sorted(operators) == kept
    assert len(report(program)) == blocks
    with torch.no_grad():
        torch.testing.assert_close(program.module()(X), Layers()(X))


def test_a_name_of_no_module_is_said_with_the_nearest(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="portrt"):
        program = compiled(Layers(), torch_executed_modules="layer.1")
    assert len(report(program)) == 1
    assert "torch_executed_modules has 'layer.1'" in caplog.text
    assert "did you mean 'layers.1'" in caplog.text
