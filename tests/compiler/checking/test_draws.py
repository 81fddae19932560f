"""Drawn inputs: their sizes are what the program takes, and indices stay valid."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from portrt.compiler.checking.captured import example_inputs, run_captured
from portrt.compiler.checking.draws import Draw, draws


def exported(function: Any, *inputs: Any, **options: Any) -> ExportedProgram:
    class Function(nn.Module):
        forward = staticmethod(function)

    return torch.export.export(Function(), inputs, **options)


def drawn(program: ExportedProgram) -> list[Draw]:
    flat = example_inputs(program)
    assert flat is not None
    return list(draws(program, flat))


def test_sizes_are_the_ends_of_the_ranges_and_small_ones() -> None:
    n, m = Dim("n", min=0, max=9), Dim("m", min=2, max=40)
    shapes = ({0: n, 1: m}, {0: n})
    program = exported(
        lambda x, y: x * 2 + y, torch.ones(3, 5), torch.ones(3, 1), dynamic_shapes=shapes
    )
    found = drawn(program)
    sizes = {(draw.sizes["x[0]"], draw.sizes["x[1]"]) for draw in found}
    assert sizes == {(3, 5), (1, 2), (1, 5), (4, 6), (0, 5), (9, 40)}
    for draw in found:
        x, y = draw.flat
        assert tuple(x.shape) == (draw.sizes["x[0]"], draw.sizes["x[1]"])
        assert tuple(y.shape) == (x.shape[0], 1)
        assert draw.weight == pytest.approx((x.numel() + y.numel()) / 18)


def test_guards_and_derived_sizes_hold() -> None:
    n = Dim("n", min=1, max=32)
    program = exported(
        lambda x, y: x.reshape(-1, 2, 2).sum(0).sum() + y[1:],
        torch.ones(12),
        torch.ones(13),
        dynamic_shapes=({0: 4 * n}, {0: 4 * n + 1}),
    )
    sizes = {tuple(tensor.shape[0] for tensor in draw.flat) for draw in drawn(program)}
    assert sizes == {(12, 13), (8, 9), (16, 17), (128, 129)}  # torch refuses (4, 5)
    for draw in drawn(program):
        run_captured(program, draw.flat)


def test_integers_stay_within_the_example_and_sorted_ones_sorted() -> None:
    n = Dim("n", min=1, max=64)
    table = torch.randn(7, 3)
    program = exported(
        lambda table, rows, starts: (table[rows], starts * 2),
        table,
        torch.tensor([2, 6, 4]),
        torch.tensor([0, 1, 5, 9]),
        dynamic_shapes=({}, {0: n}, {0: Dim("k", min=1, max=64)}),
    )
    found = drawn(program)
    assert len(found) > 6
    for draw in found:
        _, rows, starts = draw.flat
        assert int(rows.min()) >= 0 and int(rows.max()) <= 6
        if draw.label != "extreme integers":
            assert bool((starts.diff() >= 0).all())
            assert int(starts[0]) == 0 and int(starts.max()) <= 9
    (extreme,) = (draw for draw in found if draw.label == "extreme integers")
    assert int(extreme.flat[2].abs().max()) > 2**32  # it is computed with, and is no index


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_values_that_operators_handle_specially(dtype: torch.dtype) -> None:
    mask = torch.zeros(4, 4, dtype=dtype)
    mask = mask.masked_fill(torch.ones(4, 4).triu(1).bool(), torch.finfo(dtype).min)
    program = exported(
        lambda x, mask: torch.softmax(x + mask, -1), torch.randn(4, 4).to(dtype), mask
    )
    by_label = {draw.label: draw.flat for draw in drawn(program)}
    zeros = by_label["zeros and padding"][0]
    assert set(torch.signbit(zeros).flatten().tolist()) == {True, False} and not zeros.any()
    assert by_label["equal values"][0].unique().numel() <= 3
    largest = float(by_label["large values"][0].abs().max())
    assert largest == pytest.approx(200.0 if dtype == torch.float16 else 1e4, rel=0.01)
    hidden = by_label["a masked row"][1]
    assert bool((hidden[0] == torch.finfo(dtype).min).all()) and not bool(hidden[-1].any())
    for flat in by_label.values():
        assert all(value.dtype == dtype and bool(value.isfinite().all()) for value in flat)


def test_what_is_no_tensor_stays_and_drawing_is_reproducible() -> None:
    program = exported(lambda x, scale, flag: x * scale if flag else x, torch.randn(3), 2.5, True)
    first, second = drawn(program), drawn(program)
    for one, other in zip(first, second, strict=True):
        assert one.flat[1:] == other.flat[1:] == (2.5, True)
        assert torch.equal(one.flat[0], other.flat[0])


@pytest.mark.filterwarnings("ignore:The tensor attributes")
def test_a_recurrent_layer_is_not_drawn_empty() -> None:
    layer = nn.LSTM(4, 3)
    x = torch.randn(5, 3, 4)
    program = torch.export.export(layer, (x,), dynamic_shapes=({1: Dim("batch", max=8)},))
    assert all(draw.flat[0].numel() for draw in drawn(program))
