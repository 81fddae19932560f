"""One test for each private torch API in use: it fails when torch moves or changes that API."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import Compiled, assert_same
from models import lambda_module, randn
from torch import nn
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind

from portrt import torch_internals as internals
from portrt.torch_internals import exporter

aten = torch.ops.aten
OPSET = internals.NEWEST_OPSET


def exported(model: nn.Module, *args: Any, dims: Any = None) -> ExportedProgram:
    return torch.export.export(model, args, dynamic_shapes=dims)


def linear_program() -> ExportedProgram:
    return exported(nn.Linear(4, 3), randn(5, 4), dims=({0: Dim("n", max=9)},))


def nodes_by_name(program: ExportedProgram) -> dict[str, torch.fx.Node]:
    return {node.name: node for node in program.graph.nodes}


def test_the_registry_knows_what_has_a_translation() -> None:
    program = exported(lambda_module(lambda x: torch.nonzero(x.relu()).sum())(), randn(3))
    by_target = {node.target: node for node in program.graph.nodes}

    assert internals.has_onnx_translation(by_target[aten.relu.default], OPSET)
    argwhere = torch.fx.Graph().call_function(torch.ops.aten._cdist_backward.default)
    assert not internals.has_onnx_translation(argwhere, OPSET)


def test_the_registry_writes_the_newest_opset_and_no_newer_one() -> None:
    program = exported(
        lambda_module(lambda q, k, v: nn.functional.scaled_dot_product_attention(q, k, v))(),
        *[randn(1, 2, 3, 4)] * 3,
    ).run_decompositions(internals.onnx_decompositions(OPSET))

    assert internals.onnx_ir_from_program(program, OPSET).opset_imports[""] == OPSET


def test_a_translation_can_call_torchs_own_and_any_onnx_operator() -> None:
    def both(x: Any, dims: Any) -> Any:
        first, _ = internals.onnx_call("Split", [x], 2, axis=0, num_outputs=2)
        return internals.torch_translation(aten.flip.default)(first, dims)

    program = exported(lambda_module(lambda x: x.flip(0))(), randn(4))
    model = internals.onnx_ir_from_program(program, OPSET, ((aten.flip.default, both, False),))

    assert model.graph[0].op_type == "Split"
    assert len(model.graph) > 1


def test_decompositions_leave_whole_what_is_translated() -> None:
    table = internals.onnx_decompositions(OPSET)

    assert aten.scaled_dot_product_attention.default not in table
    assert aten.layer_norm.default not in table
    assert aten.addcdiv.default in table or aten.std_mean.correction in table


def test_news_of_the_exporter_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    record = logging.LogRecord("", 30, "", 0, "torchvision is not installed. Skipping", (), None)
    other = logging.LogRecord("", 30, "", 0, "something else", (), None)

    assert not exporter._is_news(record)
    assert exporter._is_news(other)


def test_sizes_of_one_are_not_taken_for_constants_when_decomposing() -> None:
    import torch.fx.experimental._config as config

    before = config.backed_size_oblivious
    with internals.oblivious_to_size_one():
        assert config.backed_size_oblivious
    assert config.backed_size_oblivious == before


def test_sizes_that_are_compared_unguarded_put_no_guard() -> None:
    batch = torch.export.Dim("batch", max=8)
    program = torch.export.export(torch.nn.ReLU(), (torch.ones(3, 4),), dynamic_shapes=[{0: batch}])
    (value,) = internals.user_input_values(program)
    guards = value.fake_mode.shape_env.guards
    before = len(guards)
    with internals.unguarded():
        assert value.shape[0] != 7
    assert len(guards) == before
    assert value.shape[0] != 7
    assert len(guards) == before + 1


def test_a_program_becomes_a_model_over_its_own_tensors() -> None:
    program = linear_program().run_decompositions({})
    model = internals.onnx_ir_from_program(program, OPSET)
    tensors = [
        internals.torch_tensor_of(value.const_value) for value in model.graph.initializers.values()
    ]

    weight = program.state_dict["weight"]
    assert any(t is not None and t.data_ptr() == weight.data_ptr() for t in tensors)
    assert internals.torch_tensor_of(object()) is None


def test_groups_are_fused_to_submodules_and_placeholders_keep_their_names() -> None:
    double = lambda_module(lambda input: (input * 2).relu() + 1)  # noqa: A006
    program = exported(double(), randn(3))
    nodes = nodes_by_name(program)
    internals.fuse(program.graph_module, [[nodes["mul"], nodes["relu"]]])
    calls = [node for node in program.graph.nodes if node.op == "call_module"]

    assert [call.target for call in calls] == ["block_0"]
    assert internals.placeholder_names(program.graph) == ["input"]
    results = program.graph_module.block_0.graph.output_node().args[0]
    assert isinstance(results, tuple)


def test_placeholders_get_exactly_the_names_that_are_asked_for() -> None:
    graph = torch.fx.Graph()
    graph.output(graph.placeholder("x"))
    internals.name_placeholders(graph, ["input"])

    assert internals.placeholder_names(graph) == ["input"]
    assert next(iter(graph.nodes)).target == "input"


def test_a_program_is_put_together_with_the_guards_of_another(tmp_path: Path) -> None:
    halves = lambda_module(lambda x: x.view(x.shape[0] // 2, 2) * 3)()
    program = exported(halves, randn(6), dims=({0: 2 * Dim("n", min=1, max=9)},))
    made = internals.program_from_graph(
        program,
        program.graph_module,
        program.graph_signature,
        program.state_dict,
        program.constants,
    )
    torch.export.save(made, tmp_path / "made.pt2")
    x = randn(10)

    assert made._guards_code == program._guards_code != []
    assert made.range_constraints == program.range_constraints
    assert_same(
        torch.export.load(tmp_path / "made.pt2").module()(x), program.module()(x).detach(), 1e-6
    )
    with pytest.raises(AssertionError, match="Guard failed"):
        made.module()(randn(20))


def test_ranges_are_replaced_without_changing_the_program() -> None:
    program = linear_program()
    ((symbol, bounds),) = program.range_constraints.items()
    other = type(bounds)(1, 5)
    changed = internals.with_ranges(program, {symbol: other})

    assert changed.range_constraints == {symbol: other}
    assert program.range_constraints == {symbol: bounds}
    assert changed.graph_module is program.graph_module


def test_values_of_user_inputs_are_in_the_order_of_the_arguments() -> None:
    program = exported(nn.Bilinear(2, 3, 4), randn(5, 2), randn(5, 3))

    assert [tuple(v.shape) for v in internals.user_input_values(program)] == [(5, 2), (5, 3)]


def test_nodes_that_compute_sizes_are_told_from_those_that_compute_tensors() -> None:
    program = exported(
        lambda_module(lambda x: x * x.shape[0])(), randn(5), dims=({0: Dim("n", max=9)},)
    )
    found = {
        node.target: internals.is_symbolic_call(node)
        for node in program.graph.nodes
        if node.op == "call_function"
    }

    assert found == {aten.sym_size.int: True, aten.mul.Tensor: False}


def test_a_size_has_an_expression_and_the_value_of_the_example() -> None:
    program = linear_program()
    (value,) = internals.user_input_values(program)

    assert internals.expression_of(value.shape[0]).is_Symbol
    assert internals.hint_of(value.shape[0]) == 5
    assert internals.hint_of(4) == 4


def test_sizes_that_depend_on_data_are_told_from_others() -> None:
    program = exported(
        lambda_module(lambda x: torch.nonzero(x))(), randn(5), dims=({0: Dim("n", max=9)},)
    )
    (value,) = internals.user_input_values(program)
    result = program.graph.output_node().args[0][0].meta["val"]

    assert internals.is_data_dependent(result.shape[0])
    assert internals.hint_of(result.shape[0]) is None
    assert not internals.is_data_dependent(value.shape[0])


def test_the_fake_mode_of_a_graph_makes_tensors_for_it() -> None:
    program = linear_program()
    mode = internals.fake_mode_of(program.graph)

    assert mode is internals.user_input_values(program)[0].fake_mode


def test_the_signature_says_which_inputs_are_users() -> None:
    kinds = [spec.kind for spec in linear_program().graph_signature.input_specs]

    assert kinds == [InputKind.PARAMETER, InputKind.PARAMETER, InputKind.USER_INPUT]


def test_a_saved_program_is_read_with_its_tensors_mapped(compiled: Compiled) -> None:
    """Through portrt.load, which is what uses the reader of torch's archives."""
    import portrt

    x = randn(3, 4)
    loaded = portrt.load(str(compiled.file("mlp")))
    module = loaded.module() if isinstance(loaded, ExportedProgram) else loaded

    assert_same(module(x), compiled.program("mlp").module()(x))


def test_the_module_of_a_program_has_guards_that_can_be_replaced() -> None:
    module = linear_program().module()
    before = internals.guards_of(module)
    assert before is not None
    with pytest.raises(AssertionError, match="Guard failed"):
        module(randn(10, 4))
    internals.set_guards(module, nn.Identity())

    assert internals.guards_of(module) is not before
    assert module(randn(10, 4)).shape == (10, 3)


def test_exporting_and_tracing_are_told_from_running() -> None:
    seen = []

    class Asks(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(internals.is_tracing())
            return x * 2

    Asks()(randn(3))
    torch.export.export(Asks(), (randn(3),))
    torch.jit.trace(Asks(), (randn(3),), check_trace=False)

    assert seen[0] is False
    assert all(seen[1:])
    assert len(seen) >= 3


@pytest.mark.parametrize("device_type", ["cpu", "cuda"])
def test_inductors_way_to_empty_tensors_is_there(device_type: str) -> None:
    from torch._C._dynamo import guards

    assert internals.empty_strided_on(device_type) is getattr(
        guards, f"_empty_strided_{device_type}"
    )


def test_empty_tensors_have_what_they_are_asked_for() -> None:
    empty = internals.empty_strided_on("cpu")
    for sizes, strides, dtype in [
        ((2, 3), (3, 1), torch.float16),
        ((), (), torch.int64),
        ((2, 0), (1, 1), torch.bool),
    ]:
        made = empty(sizes, strides, dtype)
        assert (tuple(made.shape), made.stride(), made.dtype) == (sizes, strides, dtype)


def _inserted(program: ExportedProgram) -> bool:
    """Return whether the exporter's own pass changes a graph."""
    from torch.onnx._internal.exporter import _fx_passes

    before = [str(node.target) for node in program.graph.nodes]
    _fx_passes.insert_type_promotion_nodes(program.graph_module)
    return before != [str(node.target) for node in program.graph.nodes]


@pytest.mark.parametrize(
    "function",
    [
        lambda x, i: x * 2.0,
        lambda x, i: x * 2,
        lambda x, i: x + i,
        lambda x, i: i + 1,
        lambda x, i: i + 1.5,
        lambda x, i: i / 2,
        lambda x, i: i.sum() + x.sum(),
        lambda x, i: x.to(torch.float64) + x,
        lambda x, i: torch.cat([x, i]),
        lambda x, i: torch.where(x > 0, x, i),
        lambda x, i: x.relu().softmax(-1),
        lambda x, i: (x > 0).sum(),
        lambda x, i: x**2,
        lambda x, i: x * x.shape[0],
        lambda x, i: torch.cond(x.sum() > 0, lambda y: y * 2, lambda y: y.sin(), (x,)),
    ],
)
def test_types_are_promoted_where_torchs_pass_would(function: Any) -> None:
    program = exported(
        lambda_module(function)(), randn(3), torch.arange(3), dims=({0: Dim("n", max=9)},) * 2
    ).run_decompositions({})

    assert exporter._promotes(program.graph_module) == _inserted(program)


def test_operator_lists_are_shared_until_an_operator_is_registered() -> None:
    import torch.export.exported_program as decomposition

    names = ("_collect_all_valid_cia_ops", "_is_preservable_cia_op")
    theirs = [getattr(decomposition, name) for name in names]

    def composite() -> set[Any]:
        with internals.shared_operator_lists():
            assert [getattr(decomposition, name) for name in names] != theirs
            found: set[Any] = decomposition._collect_all_valid_cia_ops()
            return found

    first = composite()
    table = internals.onnx_decompositions(OPSET)
    assert composite() is first
    with torch.library._scoped_library("portrt_composite_tests", "DEF") as library:
        library.define("twice(Tensor x) -> Tensor")
        library.impl("twice", lambda x: x + x, "CompositeImplicitAutograd")
        twice = torch.ops.portrt_composite_tests.twice.default

        assert composite() == theirs[0]() > first
        assert twice not in table
        assert twice in internals.onnx_decompositions(OPSET)
    assert [getattr(decomposition, name) for name in names] == theirs


def test_a_kernel_is_registered_once() -> None:
    library: Any = torch.library.Library("portrt_kernel_tests", "DEF")  # type: ignore[no-untyped-call]
    library.define("same(Tensor x) -> Tensor")
    operator = torch.ops.portrt_kernel_tests.same.default
    key = torch._C.DispatchKey.CPU
    with internals.shared_operator_lists():
        operator.py_impl(key)(torch.clone)
        with pytest.raises(RuntimeError, match="override a python impl"):
            operator.py_impl(key)(torch.neg)
        with pytest.raises(AssertionError, match="DispatchKey"):
            operator.py_impl("CPU")(torch.neg)
    assert operator.py_kernels == {key: torch.clone}


def test_torch_has_no_size_for_what_two_masks_pick() -> None:
    class Masks(nn.Module):
        def forward(self, x: torch.Tensor, one: torch.Tensor, two: torch.Tensor) -> torch.Tensor:
            return x[one, :, two]

    given = (randn(3, 2, 3), torch.tensor([True, False, True]), torch.tensor([False, True, True]))
    with pytest.raises(Exception, match="Pending unbacked symbols"):
        exported(Masks(), *given)
    with internals.sizes_of_several_masks():
        program = exported(Masks(), *given)

    assert torch.equal(program.module()(*given), Masks()(*given))


def test_calls_of_an_operator_go_elsewhere_first() -> None:
    library = torch.library.Library("portrt_test", "DEF")  # type: ignore[no-untyped-call]
    library.define("twice(Tensor x) -> Tensor")
    library.impl("twice", lambda x: x * 2, "CompositeExplicitAutograd")
    operator = torch.ops.portrt_test.twice
    known = {operator.default: 1, operator: 2}
    seen: list[Any] = []

    def make(through_dispatcher: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            seen.append(args)
            return through_dispatcher(*args, **kwargs)

        return call

    internals.call_first(operator, make)
    x = torch.ones(2)
    for way in (operator, operator.default, torch.ops.portrt_test.twice.default):
        assert way(x).equal(x * 2)
    assert operator.default(x=x).equal(x * 2)
    assert internals.function_of(operator.default)(x).equal(x * 2)
    assert len(seen) == 5
    assert (known[torch.ops.portrt_test.twice.default], known[torch.ops.portrt_test.twice]) == (
        1,
        2,
    )
    assert operator.__name__ == "twice"
    traced = torch.jit.trace(lambda x: operator(x), x)
    assert "portrt_test::twice" in str(traced.graph)
    exported_program = exported(lambda_module(lambda x: operator(x))(), x)
    assert any(node.target is operator.default for node in exported_program.graph.nodes)


def test_a_forward_is_renewed_and_the_call_stays() -> None:
    from portrt.torch_internals.programs import renew_forward

    class AddOne(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1

    module = torch.fx.symbolic_trace(AddOne())
    kind: Any = type(module)
    called: list[Any] = []
    inner = kind.__call__
    kind.__call__ = lambda self, *args: (called.append(args), inner(self, *args))[1]
    (node,) = (node for node in module.graph.nodes if node.op == "call_function")
    node.args = (node.args[0], 2)
    assert float(module(torch.ones(()))) == 2
    renew_forward(module)
    assert float(module(torch.ones(()))) == 3
    assert len(called) == 2
    assert "x + 2" in module.code
