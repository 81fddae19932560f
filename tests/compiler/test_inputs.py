"""`portrt.Input`: what it accepts, the example it makes and the dims it asks for."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from portrt import Input
from portrt.errors import SettingsError


def test_a_static_shape_has_no_dynamic_axis() -> None:
    given = Input((2, 3), dtype=torch.int64)

    assert given.dynamic_axes == ()
    assert given.min_shape == given.opt_shape == given.max_shape == (2, 3)


def test_axes_whose_bounds_differ_are_dynamic() -> None:
    given = Input(min_shape=(1, 3, 2), opt_shape=(2, 3, 2), max_shape=(8, 3, 5))

    assert given.dynamic_axes == (0, 2)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"shape": (2,), "min_shape": (1,)},
        {"min_shape": (1,), "max_shape": (2,)},
        {"min_shape": (1,), "opt_shape": (2, 2), "max_shape": (3,)},
        {"min_shape": (3,), "opt_shape": (2,), "max_shape": (4,)},
        {"min_shape": (1,), "opt_shape": (5,), "max_shape": (4,)},
        {"shape": (-1,)},
        {"shape": (2,), "shared_dims": {0: "n"}},
        {"min_shape": (1,), "opt_shape": (2,), "max_shape": (4,), "shared_dims": {1: "n"}},
    ],
)
def test_shapes_that_contradict_each_other_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        Input(**arguments)


def test_the_example_has_the_dtype_and_the_best_shape() -> None:
    example = Input(
        min_shape=(2, 3), opt_shape=(4, 3), max_shape=(8, 3), dtype=torch.float16
    ).example()

    assert example.shape == (4, 3)
    assert example.dtype == torch.float16


def test_the_example_of_a_best_size_of_one_is_two() -> None:
    """torch.export takes a size of one for a constant."""
    assert Input(min_shape=(0, 1), opt_shape=(1, 1), max_shape=(8, 1)).example_shape() == (2, 1)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.uint8])
def test_examples_of_whole_numbers_are_indices_of_any_table(dtype: torch.dtype) -> None:
    assert set(Input((50,), dtype=dtype).example().long().tolist()) == {0, 1}


@pytest.mark.parametrize("dtype", [torch.int32, torch.float32])
def test_examples_stay_in_their_domain(dtype: torch.dtype) -> None:
    example = Input((100,), dtype=dtype, tensor_domain=(5, 9)).example()

    assert example.min() >= 5
    assert example.max() < 9


def test_examples_can_be_made_again() -> None:
    assert torch.equal(Input((9,)).example(3), Input((9,)).example(3))
    assert not torch.equal(Input((9,)).example(3), Input((9,)).example(4))


def test_dims_have_the_range_of_the_shapes() -> None:
    dims = Input(min_shape=(1, 3), opt_shape=(2, 3), max_shape=(8, 3)).dynamic_shapes({})

    assert set(dims) == {0}
    assert (dims[0].min, dims[0].max) == (1, 8)


def test_a_shared_name_is_one_dim() -> None:
    known: dict[str, Any] = {}
    ranges = {"min_shape": (1,), "opt_shape": (2,), "max_shape": (8,)}
    one = Input(**ranges, shared_dims={0: "n"}).dynamic_shapes(known)
    other = Input(**ranges, shared_dims={0: "n"}).dynamic_shapes(known)
    apart = Input(**ranges).dynamic_shapes(known)

    assert one[0] is other[0]
    assert apart[0] is not one[0]


def test_a_shared_name_with_two_ranges_is_refused() -> None:
    known: dict[str, Any] = {}
    Input(min_shape=(1,), opt_shape=(2,), max_shape=(8,), shared_dims={0: "n"}).dynamic_shapes(
        known
    )

    with pytest.raises(SettingsError, match="1 to 8 in one input and 1 to 9"):
        Input(min_shape=(1,), opt_shape=(2,), max_shape=(9,), shared_dims={0: "n"}).dynamic_shapes(
            known
        )
