"""capture: what it takes, what it refuses, and that the user's model stays as it is."""

from __future__ import annotations

import copy
import logging
from typing import Any

import pytest
import torch
from harness import Compiled, assert_same
from models import CASES, lambda_module, mlp, randn
from torch import nn
from torch.export import Dim

import portrt
from portrt import Input
from portrt.compiler.capture import capture
from portrt.compiler.sizes.tuning import sizes_to_tune_for
from portrt.errors import CaptureError, SettingsError

X = torch.ones(3, 4)


def compiled_module(model: Any, **arguments: Any) -> Any:
    options = {"engines": "onnxruntime", "min_block_size": 1}
    return portrt.compile(model, **options, **arguments)


# ---- ways to say the inputs -----------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        {"inputs": [X]},
        {"inputs": (X,)},
        {"arg_inputs": [X]},
        {"inputs": [Input((3, 4))]},
        {"arg_inputs": (), "kwarg_inputs": {"input": X}},
        {"kwarg_inputs": {"input": Input((3, 4))}},
    ],
    ids=["list", "tuple", "arg_inputs", "Input", "kwarg", "kwarg Input"],
)
def test_inputs_can_be_given_in_each_way(arguments: dict[str, Any]) -> None:
    model = CASES["mlp"].model()
    x = randn(3, 4)
    module = compiled_module(model, **arguments)
    got = module(input=x) if "kwarg_inputs" in arguments else module(x)

    assert_same(got, model(x), 1e-5, 1e-5)


def test_dynamic_keyword_inputs_can_be_given_as_inputs() -> None:
    function = lambda_module(lambda x, *, scale: x * scale)()
    ranged = {
        "min_shape": (1, 4),
        "opt_shape": (3, 4),
        "max_shape": (8, 4),
        "shared_dims": {0: "n"},
    }
    module = compiled_module(
        function, arg_inputs=[Input(**ranged)], kwarg_inputs={"scale": Input(**ranged)}
    )
    for n in (1, 3, 8):
        x, scale = randn(n, 4), randn(n, 4)
        assert_same(module(x, scale=scale), x * scale)


def test_dynamic_variadic_inputs_can_be_given_as_inputs() -> None:
    function = lambda_module(lambda *parts: parts[0] * parts[1])()
    ranged = {"min_shape": (1,), "opt_shape": (3,), "max_shape": (8,), "shared_dims": {0: "n"}}
    module = compiled_module(function, inputs=[Input(**ranged), Input(**ranged)])
    x, y = randn(5), randn(5)

    assert_same(module(x, y), x * y)


def test_dynamic_shapes_may_stand_beside_static_inputs() -> None:
    model = CASES["mlp"].model()
    module = compiled_module(model, inputs=[Input((3, 4))], dynamic_shapes=({0: Dim("n", max=9)},))
    x = randn(7, 4)

    assert_same(module(x), model(x), 1e-5, 1e-5)


def test_dynamic_shapes_may_be_given_by_name() -> None:
    model = CASES["mlp"].model()
    module = compiled_module(model, inputs=[X], dynamic_shapes={"input": {0: Dim("n", max=9)}})
    x = randn(7, 4)

    assert_same(module(x), model(x), 1e-5, 1e-5)


def test_an_input_sets_the_dtype() -> None:
    module = compiled_module(
        lambda_module(lambda i: i + 1)(), inputs=[Input((3,), dtype=torch.int32)]
    )

    assert_same(module(torch.arange(3, dtype=torch.int32)), torch.arange(1, 4, dtype=torch.int32))


def test_an_exported_program_is_compiled_like_its_module() -> None:
    model = CASES["mlp"].model()
    program = torch.export.export(model, (X,), dynamic_shapes=({0: Dim("n", min=1, max=9)},))
    module = compiled_module(program)
    for n in (1, 3, 9):
        x = randn(n, 4)
        assert_same(module(x), model(x), 1e-5, 1e-5)


def test_an_exported_program_with_hinted_sizes_takes_one_as_it_did() -> None:
    model = CASES["mlp"].model()
    program = torch.export.export(model, (X,), dynamic_shapes=({0: Dim.AUTO},))
    ranges = dict(program.range_constraints)
    x = randn(1, 4)

    assert_same(compiled_module(program)(x), program.module()(x), 1e-5, 1e-5)
    assert program.range_constraints == ranges


def in_a_collection() -> Any:
    found = torch.export.ShapesCollection()
    found[X] = {0: Dim.AUTO}
    return found


def by_other_inputs() -> Any:
    found = torch.export.AdditionalInputs()
    found.add((randn(7, 4),))
    return found


@pytest.mark.parametrize("dynamic_shapes", [in_a_collection, by_other_inputs])
def test_collections_of_shapes_are_taken_as_torch_takes_them(dynamic_shapes: Any) -> None:
    model = CASES["mlp"].model()
    module = compiled_module(model, inputs=[X], dynamic_shapes=dynamic_shapes())
    for n in (1, 3, 90):
        x = randn(n, 4)
        assert_same(module(x), model(x), 1e-5, 1e-5)


def test_a_range_that_was_given_is_kept() -> None:
    module = compiled_module(
        CASES["mlp"].model(),
        inputs=[Input(min_shape=(2, 4), opt_shape=(3, 4), max_shape=(8, 4))],
    )
    with pytest.raises(portrt.errors.InputError, match="from 2 to 8"):
        module(randn(1, 4))


def test_engines_are_tuned_for_the_best_size_that_was_asked_for() -> None:
    """The example has 2 rows there, because torch.export takes 1 for a constant."""
    inputs = [Input(min_shape=(1, 4), opt_shape=(1, 4), max_shape=(8, 4))]
    program = capture(mlp(), inputs)

    assert list(sizes_to_tune_for(program, inputs, None).values()) == [((1, 1, 8),)]


# ---- the user's model stays as it is ------------------------------------------------------------


@pytest.mark.parametrize("name", ["counter", "running_mean", "tied_weights", "batch_norm_training"])
def test_compiling_does_not_change_the_model(name: str) -> None:
    case = CASES[name]
    model = case.model()
    before = copy.deepcopy(model)
    args, _ = case.arguments()[0]
    compiled_module(model, inputs=args, dynamic_shapes=case.dynamic_shapes)

    assert_same(dict(model.named_buffers()), dict(before.named_buffers()))
    assert_same(dict(model.named_parameters()), dict(before.named_parameters()))
    assert model.training == before.training
    assert [p.requires_grad for p in model.parameters()] == [
        p.requires_grad for p in before.parameters()
    ]


class Noted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("last", torch.zeros(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.last.copy_(x.sum(0))
        return x.relu() * 2


def test_a_buffer_that_is_only_written_has_what_calls_wrote() -> None:
    module = compiled_module(Noted(), inputs=[randn(3, 4)])
    for _ in range(2):
        x = randn(3, 4)
        module(x)
        assert_same(dict(module.named_buffers())["last"], x.sum(0), 1e-5, 1e-5)


def test_later_changes_to_the_model_do_not_reach_the_program() -> None:
    model = CASES["mlp"].model()
    x = randn(3, 4)
    want = model(x).detach()
    module = compiled_module(model, inputs=[x])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()

    assert_same(module(x), want, 1e-5, 1e-5)


def test_a_buffer_that_calls_change_starts_where_the_model_is() -> None:
    model = CASES["counter"].model()
    x = randn(3, 4)
    model(x)
    module = compiled_module(model, inputs=[x])

    assert_same(module(x), copy.deepcopy(model)(x), 1e-5, 1e-5)
    assert model.count == 1


def test_updates_of_a_buffer_can_be_read_from_the_module(compiled: Compiled) -> None:
    module = compiled.program("counter").module()
    before = int(module.count)
    module(randn(3, 4))
    module(randn(3, 4))

    assert int(module.count) == before + 2


# ---- tensors in and out -------------------------------------------------------------------------


def test_outputs_have_no_gradients_and_inputs_are_not_written(compiled: Compiled) -> None:
    x = randn(3, 4).requires_grad_()
    before = x.detach().clone()
    y = compiled.program("mlp").module()(x)

    assert not y.requires_grad
    assert y.grad_fn is None
    assert x.grad is None
    assert torch.equal(x.detach(), before)


def test_outputs_share_no_memory_with_inputs_or_each_other(compiled: Compiled) -> None:
    x = randn(3, 4)
    one, other = compiled.program("same_output_twice").module()(x)
    one.zero_()

    assert x.abs().sum() > 0
    assert_same(other, one) if one is other else assert_same(other, x * 2)


def test_the_result_of_a_call_is_not_overwritten_by_the_next(compiled: Compiled) -> None:
    module = compiled.program("mlp").module()
    x = randn(3, 4)
    first = module(x)
    kept = first.clone()
    module(randn(3, 4))

    assert torch.equal(first, kept)


def test_dims_that_share_a_name_must_agree_at_call_time(compiled: Compiled) -> None:
    module = compiled.program("two_inputs_shared_dims").module()

    with pytest.raises((portrt.errors.InputError, AssertionError)):
        module(randn(2, 5), randn(3, 3))


# ---- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "no inputs were given"),
        ({"inputs": [X], "arg_inputs": [X]}, "both inputs and arg_inputs"),
        ({"inputs": X}, "inputs is one Tensor"),
        ({"inputs": Input((3, 4))}, "inputs is one Input"),
        ({"inputs": [X], "ir": "torchscript"}, "ir is 'torchscript'"),
        (
            {
                "inputs": [Input(min_shape=(1, 4), opt_shape=(2, 4), max_shape=(3, 4))],
                "dynamic_shapes": ({0: Dim("n")},),
            },
            "together with a dynamic portrt.Input",
        ),
        (
            {"inputs": [Input(min_shape=(1, 4), opt_shape=(2, 4), max_shape=(3, 4))] * 2},
            "do not fit Sequential.forward",
        ),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        compiled_module(mlp().eval(), **arguments)


def test_a_function_is_refused() -> None:
    with pytest.raises(SettingsError, match="the model is a"):
        compiled_module(lambda x: x, inputs=[X])


def test_dynamic_shapes_beside_an_exported_program_are_refused() -> None:
    program = torch.export.export(mlp(), (X,))

    with pytest.raises(SettingsError, match="already has its dynamic shapes"):
        compiled_module(program, dynamic_shapes=({0: Dim("n")},))


def test_a_model_that_torch_cannot_export_keeps_torchs_reason() -> None:
    class DependsOnData(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2 if x.sum() > 0 else x

    with pytest.raises(CaptureError, match=r"could not capture .*DependsOnData") as caught:
        compiled_module(DependsOnData(), inputs=[X])

    assert "guard on data-dependent" in str(caught.value.__cause__)


def _resized(x: torch.Tensor) -> torch.Tensor:
    x.resize_(2, 2, 2)
    return x + 1


@pytest.mark.parametrize(
    ("function", "cause"),
    [
        (_resized, "resize_ changes 2 dimensions to 3"),
        (
            lambda x: torch.ops.aten.resize_.default(x, (2, 1, 2)),
            "resize_ changes 2 dimensions to 3",
        ),
        (lambda x: torch.sym_not(x.sum() > 0), "data-dependent"),
    ],
    ids=["method", "operator", "sym_not"],
)
def test_what_torch_refuses_is_named_with_its_line_and_a_way_out(function: Any, cause: str) -> None:
    with pytest.raises(CaptureError) as caught:
        compiled_module(lambda_module(function)(), inputs=[torch.ones(2, 3)])

    assert cause in caught.value.happened
    assert "test_capture.py:" in caught.value.happened
    assert "torch.nn.functional.pad" in caught.value.remedy or "torch.where" in caught.value.remedy


@pytest.mark.parametrize("inputs", [[], [X, X], ["text"]], ids=["none", "too many", "text"])
def test_a_wrong_number_or_kind_of_inputs_is_a_capture_error(inputs: list[Any]) -> None:
    with pytest.raises(CaptureError):
        compiled_module(mlp().eval(), inputs=inputs)


def test_a_training_model_is_compiled_as_it_is_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, logger="portrt"):
        compiled_module(mlp().train(), inputs=[X])

    assert "training mode" in caplog.text


def test_one_tensor_given_twice_is_two_inputs() -> None:
    class Difference(torch.nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return torch.relu(a) - 2 * b

    x, y = torch.randn(3), torch.randn(3)
    compiled = portrt.compile(Difference(), inputs=[x, x], engines="onnxruntime", min_block_size=1)
    torch.testing.assert_close(compiled(x, y), torch.relu(x) - 2 * y)
