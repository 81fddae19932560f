"""The public names: exactly these, each with a docstring."""

from __future__ import annotations

import dataclasses
import inspect
import types
from importlib import metadata
from typing import Any

import pytest

import portrt
from portrt import errors, files, runtime

NAMES = {
    "Input",
    "MutableModule",
    "PortrtError",
    "Settings",
    "compile",
    "doctor",
    "errors",
    "files",
    "from_plan",
    "inspect",
    "load",
    "runtime",
    "save",
}
FILES = {
    "BlockTuning",
    "FileProfile",
    "FileVerdict",
    "Target",
    "Verification",
    "add_engine",
    "check",
    "extract",
    "profile",
    "strip",
    "tune",
    "verify",
}
RUNTIME = {"BlockReport", "Policy", "cuda_graphs", "policy", "report"}


def test_the_public_names_are_these() -> None:
    assert set(portrt.__all__) == NAMES
    assert set(dir(portrt)) == NAMES
    assert len(NAMES) <= 13
    assert set(runtime.__all__) == RUNTIME
    assert set(files.__all__) == set(dir(files)) == FILES


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'portrt' has no attribute 'complie'"):
        portrt.complie  # noqa: B018


def test_the_version_is_that_of_the_package() -> None:
    assert portrt.__version__ == metadata.version("portrt")


def test_a_name_is_resolved_once() -> None:
    assert portrt.compile is portrt.compile
    assert "compile" in vars(portrt)


def test_a_star_import_brings_every_name() -> None:
    space: dict[str, Any] = {}
    exec("from portrt import *", space)
    assert set(space) >= NAMES


OBJECTS = {
    **{name: getattr(portrt, name) for name in sorted(NAMES)},
    **{f"runtime.{name}": getattr(runtime, name) for name in sorted(RUNTIME)},
    **{f"files.{name}": getattr(files, name) for name in sorted(FILES)},
    **{
        f"errors.{name}": found
        for name, found in inspect.getmembers(errors, inspect.isclass)
        if issubclass(found, errors.PortrtError)
    },
}


@pytest.mark.parametrize("name", OBJECTS)
def test_every_public_object_has_a_docstring(name: str) -> None:
    found = OBJECTS[name]
    text = inspect.getdoc(found)
    assert text
    # dataclass writes one of its own where there is none
    assert not text.startswith(f"{getattr(found, '__name__', '')}("), text


@pytest.mark.parametrize(
    "name", [name for name, found in OBJECTS.items() if isinstance(found, types.FunctionType)]
)
def test_every_argument_of_a_public_function_is_described(name: str) -> None:
    found = OBJECTS[name]
    text = inspect.getdoc(found) or ""
    for parameter in inspect.signature(found).parameters:
        assert f"{parameter}:" in text, parameter


@pytest.mark.parametrize(
    "name", [name for name, found in OBJECTS.items() if dataclasses.is_dataclass(found)]
)
def test_every_field_of_a_public_dataclass_is_described(name: str) -> None:
    text = inspect.getdoc(OBJECTS[name]) or ""
    for field in dataclasses.fields(OBJECTS[name]):
        assert f"{field.name}:" in text, field.name


@pytest.mark.parametrize(
    "name",
    [
        *("compile", "from_plan", "save", "load", "inspect", "runtime.report"),
        *("files.add_engine", "files.check", "files.extract", "files.profile"),
        *("files.strip", "files.verify"),
    ],
)
def test_a_public_function_says_what_it_raises_or_needs_nothing(name: str) -> None:
    text = inspect.getdoc(OBJECTS[name]) or ""
    assert "Raises:" in text or name == "runtime.report"


def test_the_package_is_typed() -> None:
    from importlib import resources

    assert resources.files("portrt").joinpath("py.typed").is_file()
