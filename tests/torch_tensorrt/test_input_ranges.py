"""`Input` with the arguments of Torch-TensorRT."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import portrt
from portrt.errors import SettingsError
from portrt.torch_tensorrt import Input, dtype
from portrt.torch_tensorrt.inputs import placed

RANGE: dict[str, Any] = {"min_shape": (1, 3), "opt_shape": (2, 3), "max_shape": (4, 3)}


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (None, torch.float32),
        ("float16", torch.float16),
        ("torch.int64", torch.int64),
        (dtype.half, torch.float16),
        (dtype.int32, torch.int32),
        (np.int8, torch.int8),
        (np.dtype("float64"), torch.float64),
        (torch.complex64, torch.complex64),
        ("complex64", torch.complex64),
    ],
)
def test_dtypes(given: Any, wanted: torch.dtype) -> None:
    made = Input((2, 3), dtype=given)
    assert isinstance(made, portrt.Input)
    assert made.dtype is wanted
    assert made.example().dtype is wanted


@pytest.mark.parametrize("given", ["floaty", dtype.f4, 3])
def test_an_unknown_dtype_is_an_error(given: Any) -> None:
    with pytest.raises(SettingsError, match="a dtype is"):
        Input((2, 3), dtype=given)


def test_shapes() -> None:
    assert Input([2, 3]).shape == (2, 3)
    assert Input(shape=()).shape == ()
    assert Input(**RANGE).shape == RANGE
    assert Input(shape_ranges=[((1, 3), (2, 3), (4, 3))]).max_shape == (4, 3)
    for bound, shape in RANGE.items():
        assert tuple(Input(**RANGE).example_tensor(bound).shape) == shape
    assert Input((0, 3)).example_tensor("min_shape").shape == (0, 3)


def test_profiles_of_mappings() -> None:
    second = {"min_shape": (1, 1), "opt_shape": (1, 8), "max_shape": (1, 16)}
    made = Input(profiles=[{"min_shape": (1, 1), "opt_shape": (1, 1), "max_shape": (1, 1)}, second])
    assert made.profiles == (((1, 1),) * 3, tuple(second.values()))
    with pytest.raises(SettingsError, match="a profile has 'min_shape'"):
        Input(profiles=[{"min_shape": (1, 1)}])


def test_formats() -> None:
    made = Input((1, 3, 4, 4), format=torch.channels_last).example()
    assert made.is_contiguous(memory_format=torch.channels_last)
    assert Input((1, 3)).example().is_contiguous()
    with pytest.raises(SettingsError, match="the format of an Input"):
        Input((1, 3), format="tiled")


def test_examples_of_tensors() -> None:
    for given in (torch.randn(2, 3), torch.tensor(4), torch.zeros(0, 2, dtype=torch.int64)):
        made = Input.from_tensor(given)
        assert torch.equal(made.example(), given)
        assert made.dtype is given.dtype
        assert made.shape == tuple(given.shape)
    given = torch.randn(2, 3)
    assert torch.equal(Input(torch_tensor=given).example(), given)
    assert torch.equal(Input(**RANGE, torch_tensor=given).example(), given)
    one, other = Input.from_tensors([given, given])
    assert Input.equivalent_spec(one, other)
    assert not Input.equivalent_spec(one, Input((2, 3), dtype=torch.int64))
    layout = Input.from_tensor(torch.randn(1, 3, 4, 4).to(memory_format=torch.channels_last))
    assert layout.format is layout.format.channels_last


def test_a_shape_tensor_has_the_shape_as_values() -> None:
    made = Input((2, 3), is_shape_tensor=True)
    assert torch.equal(made.example(), torch.tensor([2, 3]))
    made = Input(**RANGE, is_shape_tensor=True, dtype=torch.int32)
    assert torch.equal(made.example(), torch.tensor([2, 3], dtype=torch.int32))
    assert not made.dynamic_axes


def test_only_inputs_are_copied_to_a_device() -> None:
    x, given = torch.ones(1), Input((2, 3))
    tree = {"a": [x, None, 3]}
    assert placed(tree, torch.device("meta")) is tree
    assert placed(None, torch.device("meta")) is None
    made = placed({"a": [x, given], "b": Input((1,), device="cpu")}, torch.device("meta"))
    assert made["a"][0] is x
    assert made["a"][1].example().device.type == "meta"
    assert given.device.type == made["b"].device.type == "cpu"


def test_names_of_a_tuple_are_those_of_dynamic_sizes() -> None:
    from typing import NamedTuple

    class Shape(NamedTuple):
        batch: int
        width: int

    made = Input(min_shape=Shape(1, 3), opt_shape=Shape(2, 3), max_shape=Shape(4, 3))
    assert made.shared_dims == {0: "batch"}
    assert made.max_shape == (4, 3)
    assert Input(**RANGE, shared_dims={0: "n"}).shared_dims == {0: "n"}
    assert Input(**RANGE).shared_dims == {}
