"""Programs that are one engine call, read from the JSON of a file. Imports no torch.

torch's reader of programs takes a second to import; such a program needs none of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from portrt.format.archive import CONSTANTS, CONSTANTS_CONFIG, OPERATOR, Archive, Record
from portrt.format.dimensions import Dimension
from portrt.format.manifest import Manifest, decode

# Major version of torch's schema that is read here.
_SCHEMA = 8
_UINT8 = 1
_MAX_DEPTH = 32
_SIZE = r"L\['(\w+)'\]\.size\(\)\[(\d+)\]"
_EQUAL_SIZES = re.compile(f"{_SIZE} == {_SIZE}", re.ASCII)


@dataclass(frozen=True)
class OneCall:
    """A program whose graph is one call of `execute_engine`.

    Attributes:
        text: Text of the manifest.
        manifest: The decoded manifest.
        blobs: (Name of the constant, its record) of each blob of the call, in order.
        positions: Position among the arguments of each engine input.
        results: Index among the engine's results of each leaf of the output, in order.
        output: Structure of the output: an index into `results`, or a tuple, list or dict of
            structures.
    """

    text: str
    manifest: Manifest
    blobs: tuple[tuple[str, Record], ...]
    positions: tuple[int, ...]
    results: tuple[int, ...]
    output: Any


class _OtherFormError(Exception):
    """The program is more than one call."""


def one_call(archive: Archive, model: Any) -> OneCall | None:
    """Read a program that is one engine call of all its inputs; None for any other.

    Arguments must be tensors in positions of their own, each of which the engine takes, and
    outputs must be results of the engine in tuples, lists and dicts. All that torch would check
    when it is called must be in the block's signature.

    Args:
        archive: The file.
        model: Its program as JSON, whose form and manifests were checked.
    """
    try:
        return _read(archive, model)
    except (_OtherFormError, KeyError, TypeError, ValueError, AttributeError, IndexError):
        return None


def _read(archive: Archive, model: Any) -> OneCall:
    module = model["graph_module"]
    graph = module["graph"]
    (node,) = graph["nodes"]
    _require(node["target"] == OPERATOR and model["schema_version"]["major"] == _SCHEMA)
    _require(not graph.get("custom_obj_values"))
    constants, inputs = _inputs(module["signature"]["input_specs"], graph["inputs"])
    given = {item["name"]: item["arg"] for item in node["inputs"]}
    text = given["manifest"]["as_string"]
    manifest = decode(text)
    taken = [item["name"] for item in given["inputs"]["as_tensors"]]
    _require(len(set(taken)) == len(taken) and set(taken) == set(inputs))
    _check_sizes(manifest, taken, graph["tensor_values"], model["range_constraints"])
    for guard in model.get("guards_code", ()):
        _check_guard(guard, {name: graph["tensor_values"][name]["sizes"] for name in inputs})
    names = [constants[item["name"]] for item in given["blobs"]["as_tensors"]]
    config = archive.json(CONSTANTS_CONFIG)["config"]
    blobs = tuple((name, _blob(archive, config[name])) for name in names)
    (made,) = node["outputs"]
    returned = [item["name"] for item in made["as_tensors"]]
    outputs = [item["as_tensor"]["name"] for item in graph["outputs"]]
    _require(all("user_output" in spec for spec in module["signature"]["output_specs"]))
    _require(len(returned) == len(set(returned)) == len(manifest.outputs))
    (call,) = [entry for entry in module["module_call_graph"] if entry["fqn"] == ""]
    _check_arguments(json.loads(call["signature"]["in_spec"])[1], len(inputs))
    leaves = iter(range(len(outputs)))
    output = _structure(json.loads(call["signature"]["out_spec"])[1], leaves, 0)
    _require(next(leaves, None) is None)
    return OneCall(
        text,
        manifest,
        blobs,
        tuple(inputs.index(name) for name in taken),
        tuple(returned.index(name) for name in outputs),
        output,
    )


def _require(holds: bool) -> None:
    if not holds:
        raise _OtherFormError


def _inputs(specs: Sequence[Any], entries: Sequence[Any]) -> tuple[dict[str, str], list[str]]:
    """Return graph name -> name of each constant, and the names of the arguments in order."""
    constants: dict[str, str] = {}
    inputs: list[str] = []
    for spec, entry in zip(specs, entries, strict=True):
        ((kind, value),) = spec.items()
        name = entry["as_tensor"]["name"]
        if kind == "tensor_constant":
            _require(value["arg"]["name"] == name)
            constants[name] = value["tensor_constant_name"]
        else:
            _require(kind == "user_input" and value["arg"]["as_tensor"]["name"] == name)
            inputs.append(name)
    return constants, inputs


def _blob(archive: Archive, entry: Mapping[str, Any]) -> Record:
    """Return the record of a constant that is a whole record of bytes."""
    record = archive.record(CONSTANTS + entry["path_name"])
    meta = entry["tensor_meta"]
    _require(record.size > 0 and not entry["use_pickle"] and meta["dtype"] == _UINT8)
    _require(meta["sizes"] == [{"as_int": record.size}] and meta["strides"] == [{"as_int": 1}])
    _require(meta["storage_offset"] == {"as_int": 0} and meta["device"]["type"] == "cpu")
    return record


def _check_sizes(
    manifest: Manifest, names: Sequence[str], values: Mapping[str, Any], ranges: Mapping[str, Any]
) -> None:
    """Require that the block's signature restricts sizes as the program does."""
    for name, spec in zip(names, manifest.inputs, strict=True):
        for size, wanted in zip(values[name]["sizes"], spec.shape, strict=True):
            if isinstance(wanted, int):
                _require(size == {"as_int": wanted})
            elif isinstance(wanted, Dimension):
                symbol = size["as_expr"]["expr_str"].removeprefix("Symbol('").partition("'")[0]
                bounds = ranges[symbol]
                _require(bounds["min_val"] == wanted.min and bounds["max_val"] == wanted.max)
            else:  # an expression of earlier sizes, which the block checks
                _require("as_expr" in size)


def _check_guard(text: str, sizes: Mapping[str, Sequence[Any]]) -> None:
    """Require that a guard is implied by sizes of one symbol, which the block checks."""
    found = _EQUAL_SIZES.fullmatch(text)
    _require(found is not None)
    assert found is not None
    first, axis, second, other = found.groups()
    left, right = sizes[first][int(axis)], sizes[second][int(other)]
    _require(left["as_expr"]["expr_str"] == right["as_expr"]["expr_str"])


def _check_arguments(spec: Mapping[str, Any], count: int) -> None:
    """Require so many tensors in positions of their own, and no keyword arguments."""
    positional, keywords = spec["children_spec"]
    _require(positional["type"] == "builtins.tuple" and not keywords["children_spec"])
    _require([child["type"] for child in positional["children_spec"]] == [None] * count)


def _structure(spec: Mapping[str, Any], leaves: Any, depth: int) -> Any:
    _require(depth < _MAX_DEPTH)
    kind, children = spec["type"], spec["children_spec"]
    if kind is None:
        return next(leaves, -1)
    inner = [_structure(child, leaves, depth + 1) for child in children]
    if kind == "builtins.tuple":
        return tuple(inner)
    if kind == "builtins.list":
        return inner
    _require(kind == "builtins.dict")
    keys = json.loads(spec["context"])
    _require(all(isinstance(key, str) for key in keys) and len(set(keys)) == len(keys))
    return dict(zip(keys, inner, strict=True))
