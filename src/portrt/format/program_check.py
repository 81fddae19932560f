"""What a program in a file may make torch do, judged before torch reads it. Evaluates nothing.

torch's reader evaluates texts as Python, imports modules that texts name, calls what a text
resolves to, and unpickles records. `program_schema.py` lists what each text may be; the rest is
refused here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from portrt.errors import LoadError
from portrt.format.archive import (
    CONSTANTS,
    CONSTANTS_CONFIG,
    MODEL,
    WEIGHTS,
    WEIGHTS_CONFIG,
    Archive,
    graph_nodes,
)
from portrt.format.program_schema import PAYLOADS, PROGRAM, Check, MalformedError

# Prefix of the records of constants that are tensors; torch unpickles all others.
_TENSOR = "tensor_"
# Forms of older releases, which torch unpickles.
_LEGACY = (f"{CONSTANTS}model.pt", f"{WEIGHTS}model.pt")


def check_program(archive: Archive, model: Any, *, pickled: bool = False) -> None:
    """Refuse a program that would make torch do more than compute.

    Args:
        archive: The file.
        model: Its program as JSON.
        pickled: Allow weights and constants that only Python's pickle can read, which can run any
            code.

    Raises:
        LoadError: A field is not of the form that torch writes, an operator is in no list, or there
            are pickled weights.
    """
    constants, weights = archive.json(CONSTANTS_CONFIG), archive.json(WEIGHTS_CONFIG)
    check_form(archive, model, constants)
    _check(archive, WEIGHTS_CONFIG, weights, PAYLOADS)
    if not pickled:
        _refuse_pickles(archive, constants, weights)


def check_form(archive: Archive, model: Any, constants: Any) -> None:
    """Refuse a program whose JSON is not of the form that torch writes.

    Args:
        archive: The file.
        model: Its program as JSON.
        constants: Its list of constants as JSON.

    Raises:
        LoadError: A field is of another form, or its text is in no list.
    """
    _check(archive, MODEL, model, PROGRAM)
    _check(archive, CONSTANTS_CONFIG, constants, PAYLOADS)
    module = model["graph_module"]
    inputs, specs = len(module["graph"]["inputs"]), len(module["signature"]["input_specs"])
    if inputs != specs:
        raise LoadError(
            f"{str(archive.path)!r} has a program of {inputs} inputs with {specs} descriptions",
            "a program as torch.export writes it",
            "get the file again from where it was made",
        )


def _check(archive: Archive, name: str, value: Any, form: Check) -> None:
    try:
        form(value, None)
    except MalformedError as err:
        raise LoadError(
            f"{str(archive.path)!r} has a program that torch must not read: {err.pointer} in "
            f"{name!r} {err.fault}",
            "a program as torch.export writes it, of known operators and sizes",
            "get the file again from where it was made; torch.export.load reads it without this "
            "check, and runs what is in it",
        ) from err
    except RecursionError as err:
        raise LoadError(
            f"{str(archive.path)!r} has a program that is nested too deep",
            "a program as torch.export writes it",
            "get the file again from where it was made",
        ) from err


def _refuse_pickles(archive: Archive, constants: Any, weights: Any) -> None:
    found = [name for name in _LEGACY if name in archive.records]
    payloads = {**weights["config"], **constants["config"]}
    found += [name for name, payload in payloads.items() if payload["use_pickle"]]
    found += [
        name
        for name, payload in constants["config"].items()
        if not payload["path_name"].startswith(_TENSOR)
    ]
    if found:
        raise LoadError(
            f"{str(archive.path)!r} has pickled data, which can run any code: {found[0]!r:.80}",
            "weights and constants that are plain tensors",
            "load it with trust='pickle' if you trust the source of the file",
        )


def operators_of(model: Any) -> set[str]:
    """Return the operators that a checked program names."""
    found: set[str] = set()
    for node, _ in graph_nodes(model["graph_module"]["graph"]):
        found.add(node["target"])
        for item in node["inputs"]:
            found.update(_operators_in(item["arg"]))
    return found


def _operators_in(argument: Any) -> Iterator[str]:
    if "as_operator" in argument:
        yield argument["as_operator"]
    for item in argument.get("as_string_to_argument", {}).values():
        yield from _operators_in(item)
