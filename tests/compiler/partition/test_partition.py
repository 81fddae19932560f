"""partition: what goes to engines, what stays and why; and `compile`'s options for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from custom_ops import shifted_relu
from harness import Compiled, assert_matches_eager, assert_same, call
from models import CASES, lambda_module, randn
from torch import nn
from torch.export import Dim, ExportedProgram

import portrt
from portrt import torch_internals
from portrt.compiler.backends.onnxruntime.build import OnnxRuntimeBuilder
from portrt.compiler.backends.tensorrt.tensorrt_rtx import TensorRTRTXBuilder
from portrt.compiler.convert import translation
from portrt.compiler.convert.translations import with_built_in
from portrt.compiler.lower import lower
from portrt.compiler.options.settings import Settings
from portrt.compiler.partition import partition
from portrt.compiler.plan import Plan
from portrt.errors import BuildError, ConvertError, PartitionError
from portrt.runtime.calls import engine_calls, manifests_of
from portrt.torch_internals import exporter
from portrt.verdict import YES, Verdict

aten = torch.ops.aten


def plan_of(name: str, excluded: dict[str, Verdict] | None = None, **options: Any) -> Plan:
    """The plan for a case, with the verdicts of torch.onnx alone."""
    case = CASES[name]
    args, kwargs = case.arguments()[0]
    with torch.no_grad():
        program = torch.export.export(
            case.model(), args, kwargs, dynamic_shapes=case.dynamic_shapes
        )
    settings = Settings.from_options({"min_block_size": 1, **options})
    return partition(lower(program), settings, translation, excluded)


def reasons(plan: Plan) -> dict[str, str]:
    """Operator -> why it stays in PyTorch."""
    return {item.target: item.reason for item in plan.left_out}


def operators_of(plan: Plan) -> set[str]:
    return {
        str(node.target)
        for block in plan.blocks
        for node in block.program.graph.nodes
        if isinstance(node.target, torch._ops.OpOverload)
    }


def count_blocks(program: Any) -> int:
    return len(list(engine_calls(program)))


# ---- what stays, and why ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "target", "reason"),
    [
        ("custom_op_between", "portrt_tests.shifted_relu.default", "torch.onnx has no translation"),
        ("random", "aten.rand_like.default", "random numbers"),
    ],
)
def test_a_node_that_stays_has_its_reason(name: str, target: str, reason: str) -> None:
    assert reason in reasons(plan_of(name))[target]


def test_attention_that_drops_nothing_is_not_called_random() -> None:
    plan = plan_of("transformer_layer")

    assert "aten.scaled_dot_product_attention.default" in operators_of(plan)
    assert plan.left_out == ()


def test_a_lstm_that_drops_nothing_is_not_called_random() -> None:
    with pytest.warns(UserWarning, match="assigned during export"):
        plan = plan_of("lstm")

    assert "aten.lstm.input" in operators_of(plan)


def test_dropout_in_training_is_called_random() -> None:
    assert any(
        "random numbers" in reason for reason in reasons(plan_of("dropout_training")).values()
    )


def test_what_a_backend_refuses_stays_with_its_reason() -> None:
    def supports(node: torch.fx.Node) -> Verdict:
        return (
            Verdict.no("unsupported_operator", "no tanh here")
            if "tanh" in str(node.target)
            else YES
        )

    case = CASES["boolean_index"]
    args, _ = case.arguments()[0]
    program = torch.export.export(case.model(), args)
    plan = partition(lower(program), Settings(min_block_size=1), supports)

    assert reasons(plan)["aten.tanh.default"] == "no tanh here"


def test_nodes_that_were_refused_before_are_excluded() -> None:
    plan = plan_of("mlp_static", excluded={"relu": Verdict.no("build_failed", "it failed")})

    assert reasons(plan) == {"aten.relu.default": "it failed"}
    assert len(plan.blocks) == 2


# ---- blocks -------------------------------------------------------------------------------------


def test_two_towers_are_one_block() -> None:
    assert [block.node_count for block in plan_of("two_towers").blocks] == [6]


def test_a_block_names_its_nodes_as_the_graph_does() -> None:
    """That is how a node at which a conversion failed is found again."""
    case = CASES["sizes_on_both_sides"]
    args, _ = case.arguments()[0]
    program = torch.export.export(case.model(), args, dynamic_shapes=case.dynamic_shapes)
    lowered = lower(program)
    names = {node.name: node.target for node in lowered.graph.nodes}
    plan = partition(lowered, Settings(min_block_size=1), translation)

    for block in plan.blocks:
        for node in block.program.graph.nodes:
            if isinstance(node.target, torch._ops.OpOverload) and "sym_size" not in str(
                node.target
            ):
                assert names[node.name] is node.target


def test_weights_are_named_once_and_tied_ones_share_a_name() -> None:
    plan = plan_of("tied_weights")

    assert len(plan.tensors) == 1
    assert plan.blocks[0].weights == tuple(plan.tensors)


def test_a_weight_that_pytorch_needs_too_is_stored_once(compiled: Compiled) -> None:
    program = compiled.program("weight_used_on_both_sides")

    assert list(program.state_dict) == ["weight"]
    assert "portrt_weights" not in program.constants


def test_weights_of_blocks_are_not_kept_twice(compiled: Compiled) -> None:
    program = compiled.program("mlp")

    assert program.state_dict == {}
    assert sum(name.endswith("weights") for name in program.constants) == 1


@pytest.mark.parametrize("name", ["sizes_on_both_sides", "even_batch", "cat_of_two_lengths"])
def test_blocks_take_and_give_tensors_alone(name: str) -> None:
    plan = plan_of(name)
    calls = [node for node in plan.graph_module.graph.nodes if node.op == "call_module"]

    assert calls
    for node in calls:
        assert all(isinstance(arg.meta["val"], torch.Tensor) for arg in node.args)


def test_the_source_of_each_block_runs_alone() -> None:
    """Block by block, in PyTorch, on what eager has at that place."""
    plan = plan_of("two_towers")
    (block,) = plan.blocks
    case = CASES["two_towers"]
    for args, _ in case.arguments():
        inputs = dict(zip(("x", "y"), args, strict=True))
        given = [inputs[spec.name] for spec in block.inputs]
        weights = [plan.tensors[name] for name in block.weights]
        with torch.no_grad():
            results = block.program.module()(*given, *weights)
            assert_same(
                sorted(map(tuple, (r.shape for r in results))),
                sorted(tuple(r.shape) for r in case.model()(*args)),
            )


# ---- min_block_size -----------------------------------------------------------------------------


def test_small_blocks_stay_in_pytorch() -> None:
    plan = plan_of("custom_op_between", min_block_size=3)

    assert plan.blocks == ()
    assert reasons(plan)["aten.tanh.default"] == "its block has 2 operators, min_block_size is 3"


def test_a_small_tail_leaves_what_it_takes_to_the_block_before() -> None:
    """Only what waits for the operator in PyTorch stays there, not the mean and the product."""

    class Counted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = (x.relu().exp() + x).tanh()
            count = torch.cumsum(h.sum((1, 2)), 0)[-1]
            return self.head(h.mean(1)) + count

    program = torch.export.export(Counted().eval(), (randn(3, 5, 8),))
    settings = Settings.from_options({"min_block_size": 5, "torch_executed_ops": ["aten.cumsum"]})
    plan = partition(lower(program), settings, translation)
    assert len(plan.blocks) == 1
    left = reasons(plan)
    assert "aten.linear.default" not in left
    assert "aten.mean.dim" not in left
    assert left["aten.add.Tensor"].endswith("min_block_size is 5")
    assert left["aten.cumsum.default"] == "named in torch_executed_ops"


def test_blocks_of_the_smallest_size_are_kept() -> None:
    assert [
        block.node_count for block in plan_of("custom_op_between", min_block_size=2).blocks
    ] == [
        2,
        2,
    ]


def test_a_whole_model_is_kept_however_small(compiled: Compiled) -> None:
    program = CASES["mlp_static"].compile(min_block_size=100)

    assert count_blocks(program) == 1
    assert_matches_eager(call(program.module(), CASES["mlp_static"]), CASES["mlp_static"])


# ---- torch_executed_ops -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "op",
    [aten.relu.default, aten.relu, "aten.relu.default", "aten.relu", "torch.ops.aten.relu"],
    ids=str,
)
def test_operators_can_be_kept_in_pytorch(op: Any) -> None:
    case = CASES["mlp_static"]
    program = case.compile(torch_executed_ops=[op])

    assert count_blocks(program) == 2
    assert aten.relu.default in {node.target for node in program.graph.nodes}
    assert_matches_eager(call(program.module(), case), case)


def test_an_operator_that_is_kept_says_so() -> None:
    plan = plan_of("mlp_static", torch_executed_ops={"aten.relu"})

    assert reasons(plan) == {"aten.relu.default": "named in torch_executed_ops"}


# ---- require_full_compilation -------------------------------------------------------------------


def test_full_compilation_is_refused_with_nodes_and_reasons() -> None:
    with pytest.raises(PartitionError) as caught:
        CASES["custom_op_between"].compile(require_full_compilation=True)

    text = str(caught.value)
    assert "shifted_relu (portrt_tests.shifted_relu.default): torch.onnx has no translation" in text
    assert "\n      at plain.py:" in text or "\n      at models.py:" in text
    assert "\n      do: " in text


def test_full_compilation_of_a_model_that_engines_take_whole() -> None:
    assert count_blocks(CASES["mlp_static"].compile(require_full_compilation=True)) == 1


def test_full_compilation_is_not_hindered_by_getitems_and_sizes() -> None:
    assert count_blocks(CASES["transformer_layer"].compile(require_full_compilation=True)) == 1


# ---- dryrun -------------------------------------------------------------------------------------


@pytest.fixture
def no_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(*_: Any) -> Any:
        raise AssertionError("an engine was built")

    for backend in (OnnxRuntimeBuilder, TensorRTRTXBuilder):
        monkeypatch.setattr(backend, "build", build)


@pytest.mark.usefixtures("no_builds")
def test_dryrun_prints_blocks_and_reasons_and_builds_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    case = CASES["custom_op_between"]
    result = case.compile(dryrun=True)
    text = capsys.readouterr().out

    assert "2 blocks with 4 operators for onnxruntime; 1 nodes in PyTorch" in text
    for part in ("block_0", "block_1", "x: float32(", "[1..16], 4)", "tanh: float32("):
        assert part in text
    (row,) = [line for line in text.splitlines() if "portrt_tests.shifted_relu.default" in line]
    assert "torch.onnx has no translation for it" in row
    assert isinstance(result, ExportedProgram)
    assert count_blocks(result) == 0
    assert_matches_eager(call(result.module(), case), case)


@pytest.mark.usefixtures("no_builds")
def test_dryrun_of_a_model_without_blocks(capsys: pytest.CaptureFixture[str]) -> None:
    CASES["nothing_to_compile"].compile(dryrun=True)
    text = capsys.readouterr().out

    assert text.startswith("0 blocks with 0 operators")
    assert "In engines" not in text


@pytest.mark.usefixtures("no_builds")
def test_dryrun_says_sizes_as_expressions(capsys: pytest.CaptureFixture[str]) -> None:
    CASES["cat_of_two_lengths"].compile(dryrun=True, engines=("tensorrt_rtx", "onnxruntime"))
    text = capsys.readouterr().out

    assert "tensorrt_rtx, onnxruntime" in text
    assert "add(s" in text
    assert "In PyTorch" not in text


# ---- one failing node does not end a compile ------------------------------------------------


def fails(*_: Any, **__: Any) -> Any:
    raise ValueError("this translation is broken")


@pytest.fixture
def broken_translation() -> Iterator[None]:
    """torch.onnx claims to translate the custom operator, and fails to."""
    registry = exporter._registry(torch_internals.NEWEST_OPSET, with_built_in())
    registry.register_op(torch.ops.portrt_tests.shifted_relu.default, fails)
    yield
    exporter._registry.cache_clear()


@pytest.mark.usefixtures("broken_translation")
def test_a_node_that_fails_to_convert_stays_and_the_rest_is_compiled() -> None:
    case = CASES["custom_op_between"]
    program = case.compile()

    assert count_blocks(program) == 2
    assert shifted_relu._opoverload in {node.target for node in program.graph.nodes}
    assert_matches_eager(call(program.module(), case), case)


@pytest.mark.usefixtures("broken_translation")
def test_a_node_that_fails_to_convert_is_named_where_full_compilation_is_asked() -> None:
    with pytest.raises(PartitionError, match=r"shifted_relu .*this translation is broken"):
        CASES["custom_op_between"].compile(require_full_compilation=True)


@pytest.mark.usefixtures("broken_translation")
def test_more_failing_nodes_than_tries_end_with_whole_blocks_in_pytorch() -> None:
    class Many(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for step in range(12):
                x = shifted_relu(x * 2, step / 10) + 1
            return x

    x = randn(3, 4)
    model = Many()
    program = portrt.compile(
        model, inputs=[x], engines="onnxruntime", min_block_size=1, output_format="exported_program"
    )

    assert_same(program.module()(x), model(x), 1e-5, 1e-5)


def test_a_node_that_a_backend_names_stays_and_the_rest_is_compiled() -> None:
    """ONNX Runtime has no arctangent of float64."""

    def both(x: torch.Tensor, y: torch.Tensor) -> Any:
        return x.tanh() * 2, torch.atan(y) * 3

    model = lambda_module(both)()
    x, y = randn(3, 4), randn(3, 4).double()
    program = portrt.compile(
        model,
        inputs=[x, y],
        engines="onnxruntime",
        min_block_size=1,
        output_format="exported_program",
    )

    kept = {node.target for node in program.graph.nodes}
    assert aten.atan.default in kept
    assert aten.tanh.default not in kept
    assert_same(program.module()(x, y), model(x, y), 1e-5, 1e-5)


def refuse(material: Any) -> None:
    raise BuildError(f"no luck with {material.block.name}", "luck", "try again")


def test_a_block_that_cannot_be_built_goes_to_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    build = OnnxRuntimeBuilder.build

    def refuses_tanh(self: Any, material: Any, settings: Settings) -> Any:
        targets = {node.target for node in material.block.program.graph.nodes}
        if aten.tanh.default in targets:
            refuse(material)
        return build(self, material, settings)

    monkeypatch.setattr(OnnxRuntimeBuilder, "build", refuses_tanh)
    case = CASES["custom_op_between"]
    program = case.compile()

    assert count_blocks(program) == 1
    assert aten.tanh.default in {node.target for node in program.graph.nodes}
    assert_matches_eager(call(program.module(), case), case)


def test_an_engine_by_one_backend_is_enough(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(
        TensorRTRTXBuilder, "build", lambda self, material, settings: refuse(material)
    )
    program = CASES["mlp_static"].compile(engines=("tensorrt_rtx", "onnxruntime"))

    assert count_blocks(program) == 1
    assert "no luck with block_0" in caplog.text


@pytest.mark.parametrize(
    "options", [{"engines": ("onnxruntime",)}, {"engines": None, "require_full_compilation": True}]
)
def test_no_engine_at_all_is_an_error_where_engines_were_asked_for(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    for backend in (OnnxRuntimeBuilder, TensorRTRTXBuilder):
        monkeypatch.setattr(backend, "build", lambda self, material, settings: refuse(material))

    with pytest.raises((BuildError, PartitionError), match="no luck with block_0"):
        CASES["mlp_static"].compile(**options)


def test_no_engine_at_all_is_a_warning_where_none_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for backend in (OnnxRuntimeBuilder, TensorRTRTXBuilder):
        monkeypatch.setattr(backend, "build", lambda self, material, settings: refuse(material))
    case = CASES["mlp_static"]
    program = case.compile(engines=None)

    assert count_blocks(program) == 0
    assert "the whole model runs in PyTorch" in caplog.text
    assert_matches_eager(call(program.module(), case), case)


def test_a_model_without_anything_to_compile_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    CASES["nothing_to_compile"].compile()

    assert "no node of the model is in an engine" in caplog.text


def test_convert_errors_survive_pickling_with_their_node() -> None:
    err = ConvertError("a", "b", "c", node="relu")

    assert err.__reduce__()[1] == ("a", "b", "c", "relu")


# ---- what a block says of itself ------------------------------------------------------------


def test_sizes_of_inputs_are_ranges_with_the_size_to_tune_for(compiled: Compiled) -> None:
    (text,) = manifests_of(compiled.program("mlp_opt_of_one"))

    assert '{"max":8,"min":1,"opt":1,' in text


def test_a_block_takes_a_program_input_for_its_size_alone() -> None:
    plan = plan_of("size_of_pytorch_result")

    assert {spec.name for spec in plan.blocks[1].inputs} >= {"x"}


def test_dims_that_depend_on_each_other_are_trees_of_earlier_ones() -> None:
    (block,) = plan_of("related_dims").blocks
    by_name = {spec.name: spec.shape[0] for spec in block.inputs}

    assert by_name["x"].min == 3
    assert by_name["y"] == ["add", ["dim", 0, 0], -1]


def test_a_node_on_another_device_than_the_model_stays() -> None:
    """A node on the meta device, in a model on the CPU."""
    dims = {0: Dim("n", max=9)}
    model = lambda_module(lambda x: (x.tanh() * 2, x.to("meta") * 3))()
    program = torch.export.export(model, (randn(3, 4),), dynamic_shapes=(dims,))
    plan = partition(lower(program), Settings(min_block_size=1), translation)

    assert any("it runs on meta, the model on cpu" in reason for reason in reasons(plan).values())


def test_names_of_operators_that_match_nothing_are_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    portrt.compile(
        nn.Sequential(nn.Linear(4, 4), nn.SiLU(), nn.Dropout()).eval(),
        inputs=[randn(2, 4)],
        engines="onnxruntime",
        min_block_size=1,
        torch_executed_ops={"aten.sliu", "aten.silu", "aten.dropout.default", "higher_order.cond"},
    )
    assert "'aten.sliu', which matches no operator; did you mean 'aten.silu'?" in caplog.text
    assert "'aten.dropout.default', which matches no operator; torch decomposes it" in caplog.text
    assert "'higher_order.cond', which matches no operator\n" in caplog.text
    assert "'aten.silu', which" not in caplog.text
