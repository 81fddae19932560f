"""The errors: three parts each, whichever way they travel."""

from __future__ import annotations

import copy
import inspect
import pickle
import traceback
from typing import Any

import pytest

from portrt import errors
from portrt.errors import ConvertError, PortrtError, SaveError, brief

CLASSES = [
    found
    for _, found in inspect.getmembers(errors, inspect.isclass)
    if issubclass(found, PortrtError)
]
PARTS = ("it broke\n    in two lines", "a whole one", "mend it")


def test_all_classes_are_found() -> None:
    assert {found.__name__ for found in CLASSES} == {
        "BackendUnavailableError",
        "BuildError",
        "CaptureError",
        "CheckError",
        "ConvertError",
        "EngineError",
        "InputError",
        "LoadError",
        "LowerError",
        "NoUsableEngineError",
        "OutOfProfileError",
        "PackageError",
        "PartitionError",
        "PortrtError",
        "SaveError",
        "SettingsError",
    }


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize(
    "travel", [pickle.dumps, copy.copy, copy.deepcopy], ids=lambda f: f.__name__
)
def test_the_three_parts_travel(kind: type[PortrtError], travel: Any) -> None:
    error = travel(kind(*PARTS))
    if isinstance(error, bytes):
        error = pickle.loads(error)
    assert type(error) is kind
    assert (error.happened, error.expected, error.remedy) == PARTS
    assert str(error) == str(kind(*PARTS))


@pytest.mark.parametrize("kind", CLASSES)
def test_the_message_has_what_happened_what_was_expected_and_what_to_do(
    kind: type[PortrtError],
) -> None:
    text = "it broke\n    in two lines\n  Expected: a whole one\n  Do: mend it"
    assert str(kind(*PARTS)) == text
    assert text in "".join(traceback.format_exception(kind(*PARTS)))


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("count", [0, 1, 2])
def test_all_three_parts_are_required(kind: type[PortrtError], count: int) -> None:
    with pytest.raises(TypeError):
        kind(*PARTS[:count])


@pytest.mark.parametrize("kind", CLASSES)
def test_every_class_says_what_it_is_for(kind: type[PortrtError]) -> None:
    assert kind.__doc__
    assert kind.__doc__ != PortrtError.__doc__ or kind is PortrtError


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (errors.SettingsError, ValueError),
        (errors.InputError, ValueError),
        (errors.SaveError, OSError),
        (errors.EngineError, RuntimeError),
        (errors.NoUsableEngineError, RuntimeError),
    ],
)
def test_who_catches_the_builtin_catches_ours(
    kind: type[PortrtError], builtin: type[Exception]
) -> None:
    assert issubclass(kind, builtin)


def test_a_convert_error_keeps_its_node() -> None:
    error = pickle.loads(pickle.dumps(ConvertError(*PARTS, node="add_3")))
    assert error.node == "add_3"
    assert ConvertError(*PARTS).node is None


def test_a_save_error_does_not_take_its_parts_for_an_error_number() -> None:
    error = SaveError(*PARTS)
    assert (error.errno, error.strerror, error.filename) == (None, None, None)
    assert error.args == PARTS


def test_the_cause_is_kept() -> None:
    with pytest.raises(errors.BuildError) as caught:
        try:
            raise KeyError("first")
        except KeyError as err:
            raise errors.BuildError(*PARTS) from err
    assert isinstance(caught.value.__cause__, KeyError)


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [deep(100_000), 10**10_000, -(10**10_000), "x" * 10_000_000, [1] * 1_000_000, {1: deep(5000)}],
    ids=["deep", "number", "negative", "text", "list", "mapping"],
)
def test_a_value_of_any_size_is_printed_briefly(value: Any) -> None:
    text = brief(value)
    assert 0 < len(text) <= 60


@pytest.mark.parametrize("value", [None, True, 8.5, -3, "onnxruntime", ["dim", 0, 1], {"a": 1}])
def test_a_small_value_is_printed_as_it_is(value: Any) -> None:
    assert brief(value) == repr(value)
