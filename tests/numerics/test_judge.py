"""What PyTorch itself is uncertain of is no fault of an engine; everything else is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from portrt.numerics.compare import compare
from portrt.numerics.judge import excuse_rows, is_excused
from portrt.numerics.precise_run import precise_outputs, shaken

NAN, INF = float("nan"), float("inf")


def graph_of(function: Any, *inputs: torch.Tensor) -> torch.fx.GraphModule:
    class Function(nn.Module):
        forward = staticmethod(function)

    return torch.export.export(Function(), inputs).graph_module


@pytest.mark.parametrize(
    ("got", "wanted", "precise", "shaken_to", "ok"),
    [
        ([1.0, 2.0], [1.0, 2.0], [1.0, 2.0], [1.0, 2.0], True),
        ([1.0, 2.1], [1.0, 2.0], [1.0, 2.0], [1.0, 2.0], False),
        ([1.0, 2.1], [1.0, 2.0], [1.0, 2.05], [1.0, 2.0], True),  # PyTorch is off by as much
        ([1.0, 2.1], [1.0, 2.0], [1.0, 2.0], [1.0, 2.02], True),  # by the last bits
        ([1.0, 9.0], [1.0, 2.0], [1.0, 2.05], [1.0, 2.02], False),  # more than ten times as far
        ([1.0, 5.0], [1.0, INF], [1.0, 5.0], [1.0, INF], True),  # an overflow of PyTorch
        ([1.0, 5.0], [1.0, INF], [1.0, INF], [1.0, INF], False),
        ([1.0, 0.0], [1.0, NAN], [1.0, NAN], [1.0, NAN], False),
        ([1.0, NAN], [1.0, 2.0], [1.0, 2.0], [1.0, 2.0], False),
        ([1.0, NAN], [1.0, NAN], [1.0, NAN], [1.0, NAN], True),
        ([NAN, 1.0], [0.5, 1.0], None, [0.5, 1.0], False),
        ([], [], [], [], True),
    ],
)
def test_floats(
    got: list[float],
    wanted: list[float],
    precise: list[float] | None,
    shaken_to: list[float],
    ok: bool,
) -> None:
    exact = None if precise is None else torch.tensor(precise, dtype=torch.float64)
    others = [torch.tensor(shaken_to)]
    assert is_excused(torch.tensor(got), torch.tensor(wanted), 1e-3, exact, others) is ok


def test_integers_and_bools_count_where_all_runs_agree() -> None:
    wanted, other = torch.tensor([3, 1, 0]), torch.tensor([3, 2, 0])
    assert is_excused(torch.tensor([3, 7, 0]), wanted, 0.0, None, [other])
    assert not is_excused(torch.tensor([4, 1, 0]), wanted, 0.0, None, [other])
    yes = torch.tensor([True, False])
    assert not is_excused(~yes, yes, 0.0, yes, [yes])


def test_nothing_is_excused_without_another_run_or_with_other_shapes() -> None:
    one = torch.ones(2)
    assert not is_excused(one, one, 1e-3, None, [])
    assert not is_excused(torch.ones(3), one, 1e-3, None, [one])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_shaken_values_differ_in_their_last_bits(dtype: torch.dtype) -> None:
    value = torch.tensor([1.0, 1.0, -3.0, 0.0, INF, -INF, NAN], dtype=dtype)
    tied, free = (shaken(value, 1, keep_ties=keep) for keep in (True, False))
    for made in (tied, free):
        assert made.dtype == dtype
        torch.testing.assert_close(made, value, rtol=0.02, atol=0.02, equal_nan=True)
        assert not torch.equal(made[:3], value[:3])
    assert tied[0] == tied[1]
    whole = torch.arange(3)
    assert shaken(whole, 1, keep_ties=False) is whole


def test_a_float64_run_replaces_the_dtypes_that_calls_name() -> None:
    def third(x: torch.Tensor) -> torch.Tensor:
        return x.to(torch.float16).float() / 3 + torch.ones(2, dtype=torch.float32)

    x = torch.tensor([1.0, 2.0])
    found = precise_outputs(graph_of(third, x), [x])
    assert found is not None
    torch.testing.assert_close(found[0], x.double() / 3 + 1, rtol=0, atol=0)


def test_a_float64_run_leaves_its_arguments_as_they_are() -> None:
    def write(x: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
        return n.add_(1) * x

    x, n = torch.ones(2), torch.zeros(2, dtype=torch.int64)
    assert precise_outputs(graph_of(write, x, n), [x, n.clone()]) is not None
    assert n.tolist() == [0, 0]


def test_kernels_that_compute_different_things_are_no_reference() -> None:
    """PyTorch's sums of embedding bags end elsewhere in float64."""

    def bags(weight: torch.Tensor, rows: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        return nn.functional.embedding_bag(
            rows, weight, offsets, mode="sum", include_last_offset=True
        )

    weight = torch.arange(10.0).unsqueeze(1)
    given = [weight, torch.tensor([1, 2, 4, 5, 4, 3, 2, 9]), torch.tensor([0, 2, 4])]
    own, wide = (bags(w, *given[1:]) for w in (weight, weight.double()))
    found = precise_outputs(graph_of(bags, *given), given)
    assert (found is None) is not torch.equal(own.double(), wide)


def test_a_block_is_excused_for_cancellation_and_for_nothing_else() -> None:
    def cancel(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return (x + 1e6) - 1e6, x * 2

    x = torch.rand(64, generator=torch.Generator().manual_seed(0))
    module = graph_of(cancel, x)
    wanted = cancel(x)
    got = [x, x * 2.02]  # exact, and wrong
    rows = [compare(str(index), *pair) for index, pair in enumerate(zip(got, wanted, strict=True))]
    assert [row["ok"] for row in rows] == [False, False]
    excuse_rows(rows, got, wanted, module, lambda: [x], 1)
    assert [row["ok"] for row in rows] == [True, False]
    assert rows[0]["uncertain"] is True
