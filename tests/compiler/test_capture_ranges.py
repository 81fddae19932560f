"""Ranges of sizes: what torch.export finds of them in the model, and what is logged about it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from harness import assert_same
from models import lambda_module, randn
from torch import nn
from torch.export import Dim

import portrt
from portrt import Input
from portrt.compiler.capture import capture
from portrt.compiler.sizes.refused_sizes import refused_sizes

aten = torch.ops.aten


def ranged(low: tuple[int, ...], opt: tuple[int, ...], high: tuple[int, ...]) -> Input:
    return Input(min_shape=low, opt_shape=opt, max_shape=high)


def compiled(function: Callable[..., Any], *inputs: Any, **options: Any) -> Any:
    options = {"min_block_size": 1, **options}
    return portrt.compile(
        lambda_module(function)(), inputs=inputs, engines="onnxruntime", **options
    )


# ---- sizes that torch.export finds to be equal, or narrower -------------------------------------


def test_sizes_that_must_be_equal_are_one_size(caplog: pytest.LogCaptureFixture) -> None:
    function = nn.functional.scaled_dot_product_attention
    inputs = [ranged((1, 2, 3, 4), (4, 2, 3, 4), (6, 2, 3, 4)) for _ in range(3)]
    module = compiled(lambda q, k, v: function(q, k, v), *inputs, require_full_compilation=True)
    for n in (1, 2, 6):
        given = [randn(n, 2, 3, 4) for _ in range(3)]
        assert_same(module(*given), function(*given), 1e-5, 1e-5)

    assert "q[0], k[0] and v[0] are one size" in caplog.text
    with pytest.raises(portrt.errors.InputError):
        module(randn(2, 2, 3, 4), randn(3, 2, 3, 4), randn(3, 2, 3, 4))


def test_guards_of_the_model_bring_no_others() -> None:
    """torch asks `a == 1` where a guard says `a == 1 or a == b`: that would refuse a batch of 1."""

    def function(a: Any, b: Any, c: Any, d: Any, e: Any, f: Any) -> Any:
        return torch.baddbmm(a, b, c), torch.baddbmm(d, e, f)

    def given(n: int) -> list[torch.Tensor]:
        shapes = [(n, 3, 5), (n, 3, 4), (n, 4, 5)]
        return [
            randn(*shape).to(dtype) for dtype in (torch.float32, torch.half) for shape in shapes
        ]

    dims = [{0: Dim(f"batch{index // 3}", min=1, max=16)} for index in range(6)]
    with torch.fx.experimental._config.patch(backed_size_oblivious=True):
        captured = torch.export.export(
            lambda_module(function)(), tuple(given(3)), dynamic_shapes=tuple(dims)
        )
    module = portrt.compile(captured, engines="onnxruntime", min_block_size=1)
    for n in (1, 3, 16):
        inputs = given(n)
        assert_same(module(*inputs), function(*inputs), 1e-2, 1e-2)


SIDE = Dim("side", min=1, max=8)


@pytest.mark.parametrize("windows", [[1, 2], [1, 1], [2, 2]], ids=str)
def test_lowering_asks_no_size_whether_it_is_a_multiple(windows: list[int]) -> None:
    def function(x: Any) -> Any:
        return nn.functional.adaptive_max_pool2d(x * 2, windows, return_indices=True)

    module = compiled(function, randn(3, 4, 4), dynamic_shapes=({1: SIDE, 2: SIDE},))
    for size in (4, 2, 7):
        x = randn(3, size, size)
        assert_same(module(x), function(x), 1e-6, 1e-6)


def test_keyword_inputs_are_joined_too(caplog: pytest.LogCaptureFixture) -> None:
    model = lambda_module(lambda x, *, y: x + y)()
    part = ranged((1, 4), (3, 4), (8, 4))
    program = capture(model, [part], {"y": part})

    assert "x[0] and y[0] are one size" in caplog.text
    assert len(program.range_constraints) == 1


def test_a_range_that_the_model_narrows_is_named(caplog: pytest.LogCaptureFixture) -> None:
    def padded(x: torch.Tensor) -> torch.Tensor:
        return nn.functional.pad(x, (1, 1, 2, 2), mode="reflect")

    module = compiled(padded, ranged((1, 2, 2, 2), (1, 2, 4, 4), (1, 2, 6, 6)))
    x = randn(1, 2, 6, 2)

    assert_same(module(x), padded(x))
    assert "x[2] is 3 to 6 instead of 2 to 6" in caplog.text
    with pytest.raises(portrt.errors.InputError, match="from 3 to 6"):
        module(randn(1, 2, 2, 2))


def test_a_size_that_the_model_fixes_is_static(caplog: pytest.LogCaptureFixture) -> None:
    module = compiled(lambda x: x.reshape(6, -1) * 2, ranged((2, 4), (6, 4), (6, 4)))

    x = randn(6, 4)

    assert_same(module(x), x * 2)
    assert caplog.text.count("instead of") <= 1


def test_conditions_on_a_size_are_logged_and_checked(caplog: pytest.LogCaptureFixture) -> None:
    module = compiled(lambda x: x.view(2, 2, -1) * 2, ranged((1, 2, 5), (10, 2, 5), (10, 2, 5)))
    for n in (10, 4, 2):
        x = randn(n, 2, 5)
        assert_same(module(x), x.view(2, 2, -1) * 2)

    assert "refuses sizes within its ranges" in caplog.text
    with pytest.raises(portrt.errors.InputError, match="% 4"):
        module(randn(3, 2, 5))


def test_a_slice_that_begins_after_the_end_is_logged_and_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    module = compiled(lambda x: x[:, 1:] * 2, ranged((3, 0), (3, 4), (3, 6)))
    for n in (1, 2, 6):
        x = randn(3, n)
        assert_same(module(x), x[:, 1:] * 2)

    assert "such as x (3, 0)" in caplog.text
    with pytest.raises(portrt.errors.InputError, match="larger inputs"):
        module(randn(3, 0))


@pytest.mark.parametrize(
    ("function", "size"),
    [
        (lambda x: x[:2] * 2, 1),
        (lambda x: x[-1:] * 2, 0),
        (lambda x: (x * 2)[-1:100], 0),
    ],
)
def test_a_slice_of_fewer_elements_than_in_the_example_is_logged_and_refused(
    function: Callable[[torch.Tensor], torch.Tensor], size: int, caplog: pytest.LogCaptureFixture
) -> None:
    dims = ({0: Dim("n", min=size, max=6)},)
    module = compiled(function, randn(4, 3), dynamic_shapes=dims)
    for n in (2, 3, 6):
        x = randn(n, 3)
        assert_same(module(x), function(x))

    assert f"may refuse sizes within its ranges, such as x ({size}, 3)" in caplog.text
    with pytest.raises(portrt.errors.InputError, match="larger inputs"):
        module(randn(size, 3))


def test_slices_with_the_sizes_of_the_program_are_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def sliced(x: torch.Tensor) -> torch.Tensor:
        return x[:, : x.shape[1]] * 2 + x[:1, :1] + x[:2, :-1].sum()

    dims = ({1: Dim("n", min=2, max=6)},)
    module = compiled(sliced, randn(3, 4), dynamic_shapes=dims)
    for n in (2, 6):
        x = randn(3, n)
        assert_same(module(x), sliced(x), 1e-5, 1e-5)
    assert "refuse" not in caplog.text


def test_guards_of_a_decomposition_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    def attended(x: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.scaled_dot_product_attention(x, key, key) * 2

    a = Dim("a", min=1, max=5)
    with torch.fx.experimental._config.patch(backed_size_oblivious=True):
        captured = torch.export.export(
            lambda_module(attended)().eval(),
            (randn(5, 2, 5, 5).double(), randn(5, 2, 4, 5).double()),
            dynamic_shapes=({0: a, 3: a}, {0: a, 3: a}),
        )
    assert "refuses" not in caplog.text
    program = portrt.compile(
        captured, engines="onnxruntime", min_block_size=1, output_format="exported_program"
    )
    assert "!= 1" in caplog.text
    assert "x (1, 2, 5, 1)" in caplog.text
    with pytest.raises(AssertionError, match="!= 1"):
        program.module()(randn(1, 2, 5, 1).double(), randn(1, 2, 4, 1).double())


def test_a_branch_on_size_one_leaves_one_to_the_model(caplog: pytest.LogCaptureFixture) -> None:
    def doubled(x: torch.Tensor) -> torch.Tensor:
        return x.repeat(2, 1)[1:] * 2 if x.shape[0] > 1 else x

    module = compiled(doubled, ranged((1, 4), (3, 4), (8, 4)))
    for n in (2, 8):
        x = randn(n, 4)
        assert_same(module(x), doubled(x))


# ---- sizes of 0 and 1 ---------------------------------------------------------------------------

GENERIC: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "slice from the end": lambda x: x[:, -2:10:2] * 2,
    "slice to the end": lambda x: x[:, -9:-2:2] * 2,
    "every second": lambda x: x[:, ::2] * 2,
    "second half": lambda x: x[:, x.shape[1] // 2 :] * 2,
    "half of it": lambda x: torch.roll(x, x.shape[1] // 2, 1)[:, : x.shape[1] // 2 + 1],
    "beyond the end": lambda x: x[:, 3:20] * 2,
}


@pytest.mark.parametrize("form", ["Input", "Dim"])
def test_sizes_within_a_range_are_all_taken(form: str, caplog: pytest.LogCaptureFixture) -> None:
    def together(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(function(x) for function in GENERIC.values())

    if form == "Input":
        given: dict[str, Any] = {"inputs": [ranged((2, 1), (2, 7), (2, 12))]}
    else:
        shapes = ({1: Dim("n", min=1, max=12)},)
        given = {"inputs": [randn(2, 7)], "dynamic_shapes": shapes}
    module = portrt.compile(
        lambda_module(together)(),
        engines="onnxruntime",
        min_block_size=1,
        require_full_compilation=True,
        **given,
    )
    for n in (1, 2, 3, 5, 12):
        x = randn(2, n)
        assert_same(module(x), together(x))
    assert "fewer sizes" not in caplog.text


@pytest.mark.parametrize("size", [0, 1])
@pytest.mark.parametrize("dim", [Dim("n", max=9), Dim("n", min=1, max=9), Dim.DYNAMIC])
def test_examples_of_size_zero_and_one_are_enlarged(size: int, dim: Any) -> None:
    module = portrt.compile(
        lambda_module(lambda x, *, y: x * 2 + y)(),
        arg_inputs=[torch.ones(size, 4)],
        kwarg_inputs={"y": torch.ones(size, 4)},
        dynamic_shapes={"x": {0: dim}, "y": [dim, None]},
        engines="onnxruntime",
        min_block_size=1,
    )
    for n in (1, 2, 9):
        x, y = randn(n, 4), randn(n, 4)
        assert_same(module(x, y=y), x * 2 + y)


def test_an_example_of_size_one_stays_where_torch_infers_the_size() -> None:
    program = capture(
        lambda_module(lambda x, y: x + y)(),
        [torch.ones(1, 4), torch.ones(5, 4)],
        dynamic_shapes=({0: Dim.AUTO}, {0: Dim.AUTO}),
    )
    x, y = program.graph.find_nodes(op="placeholder")

    assert x.meta["val"].shape[0] == 1
    assert isinstance(y.meta["val"].shape[0], torch.SymInt)


# ---- guards within the ranges -------------------------------------------------------------------


class Table(nn.Module):
    """An older form of a vision transformer's position table: `float` fixes a size."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        factor = float(x.shape[0] // 14 + 0.1) / 4
        return x * factor


def test_a_guard_that_refuses_the_range_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    shapes = ({0: 14 * Dim("n", min=2, max=20)},)
    program = capture(Table(), [randn(70)], dynamic_shapes=shapes)

    assert "== 5.1" in caplog.text
    assert "x (28,)" in caplog.text
    refused = {refusal.size for refusal in refused_sizes(program)}
    assert {2, 4, 6, 20} <= refused
    assert 5 not in refused


def test_an_exported_program_has_its_guards_tried_too(caplog: pytest.LogCaptureFixture) -> None:
    shapes = ({0: 14 * Dim("n", min=2, max=20)},)
    capture(torch.export.export(Table(), (randn(70),), dynamic_shapes=shapes))

    assert "== 5.1" in caplog.text


@pytest.mark.parametrize("dim", [Dim("n", min=2, max=9), Dim("n"), Dim.AUTO, Dim.DYNAMIC])
def test_a_program_that_takes_its_ranges_logs_nothing(
    dim: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="portrt"):
        capture(lambda_module(lambda x: x * 2 + 1)().eval(), [randn(5)], dynamic_shapes=({0: dim},))
    assert not caplog.records
