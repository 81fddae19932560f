"""Engines in parts whose program or manifest was changed, with right digests."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile_mutations import Program, parts_of
from picky_backend import Product, save_in_parts

import portrt
from portrt import files
from portrt.errors import EngineError, NoUsableEngineError, PackageError
from portrt.runtime import policy

X = torch.ones(3, 8)
# What a part that the program calls, but the manifest does not have, is refused with.
Edit = Callable[[Program], Any]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("parts") / "model.pt2"
    save_in_parts(path)
    return path.read_bytes()


def engine_of(program: Program) -> Any:
    return program.manifest(program.calls[0])["engines"][0]


def with_program(whole: bytes, edit: Edit) -> bytes:
    """The file with an edited program of its engine in parts."""
    program = Program(whole)

    def change(data: bytes) -> bytes:
        inner = Program(data)
        edit(inner)
        return inner.data()

    program.change_blob(program.calls[0], engine_of(program)["data"], change)
    return program.data()


def of_part(index: int, edit: Callable[[dict[str, Any]], Any]) -> Edit:
    """An edit of what the program says of a part."""

    def change(inner: Program) -> None:
        manifest = inner.manifest(inner.calls[index])
        edit(manifest)
        inner.store_manifest(inner.calls[index], manifest)

    return change


def _twice(inner: Program) -> None:
    again = copy.deepcopy(inner.calls[0])
    for output in again["outputs"][0]["as_tensors"]:
        inner.graph["tensor_values"][f"{output['name']}_2"] = inner.graph["tensor_values"][
            output["name"]
        ]
        output["name"] += "_2"
    inner.graph["nodes"].insert(inner.graph["nodes"].index(inner.calls[0]) + 1, again)


def _without(name: str) -> Edit:
    def change(inner: Program) -> None:
        call = inner.calls[0]
        call["inputs"] = [item for item in call["inputs"] if item["name"] != name]

    return change


def _argument(name: str, value: Any) -> Edit:
    def change(inner: Program) -> None:
        for item in inner.calls[0]["inputs"]:
            if item["name"] == name:
                item["arg"] = value

    return change


def _shape(kind: str, *shape: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda manifest: manifest[kind][0].update(shape=list(shape))


PROGRAMS: dict[str, Edit] = {
    "a part of another name": of_part(0, lambda m: m.update(name="other")),
    "a part that is called twice": _twice,
    "two parts of one name": of_part(1, lambda m: m.update(name="block_0")),
    "a part of an unknown version": of_part(0, lambda m: m.update(format=9)),
    "no manifest": _without("manifest"),
    "a manifest that is a number": _argument("manifest", {"as_int": 3}),
    "a manifest that is no JSON": _argument("manifest", {"as_string": "{"}),
    "no inputs": _without("inputs"),
    "inputs that are a number": _argument("inputs", {"as_int": 3}),
    "an empty list of inputs": _argument("inputs", {"as_tensors": []}),
    "more inputs than the engine has": of_part(0, lambda m: m["inputs"].extend(m["inputs"])),
    "an input of another dtype": of_part(0, lambda m: m["inputs"][0].update(dtype="float64")),
    "an input of another size": of_part(0, _shape("inputs", 3, 9)),
    "an input of another rank": of_part(0, _shape("inputs", 3)),
    "an output of another dtype": of_part(0, lambda m: m["outputs"][0].update(dtype="int8")),
    "an output of a smaller size": of_part(0, _shape("outputs", 1, 1)),
    "an output of a larger size": of_part(0, _shape("outputs", 300, 4000)),
    "an output of another rank": of_part(0, _shape("outputs", 12)),
    "fewer outputs than the engine has": of_part(0, lambda m: m["outputs"].pop()),
    "a program that returns less": lambda inner: inner.graph["outputs"].pop(),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_that_does_not_fit_is_refused(whole: bytes, tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.pt2"
    path.write_bytes(with_program(whole, PROGRAMS[name]))
    module = portrt.load(path, verify=True).module()  # its digests are right
    with (
        policy(fallback="error"),
        pytest.raises((PackageError, NoUsableEngineError, EngineError)) as caught,
    ):
        module(X)
    assert caught.value.remedy
    try:
        (block,) = files.verify(path).blocks
        assert not block.engines[0].ok
    except PackageError:
        pass
    files.strip(path, source=True, output=tmp_path / "out.pt2")  # reads no program


def test_a_part_takes_no_inputs_of_another_dtype_later(whole: bytes, tmp_path: Path) -> None:
    """Branches may return other dtypes from call to call, of the same sizes."""
    from portrt.engines.base import OpenOptions
    from portrt.format.archive import Archive, engine_calls
    from portrt.format.memory_map import map_file
    from portrt.runtime.stored_block import StoredBlock

    path = tmp_path / "a.pt2"
    path.write_bytes(whole)
    (call,) = engine_calls(Archive(path))
    block = StoredBlock.mapped(call.manifest, call.blobs, map_file(str(path)))
    session: Any = block.open_engine(call.manifest.engines[0], torch.device("cpu"), OpenOptions())
    part = session.module.portrt_part_0
    (spec,) = block.signature.inputs
    assert spec.dtype == "float32"
    part([X])
    for other in (X.double(), X.to(torch.int8), X.to("meta")):
        with pytest.raises(portrt.PortrtError):
            part([other])


@pytest.mark.parametrize(
    "name",
    [
        "x\"); open('portrt-marker', 'w'); (\"",
        "x'); open('portrt-marker', 'w'); ('",
        "a.b",
        "forward",
        "..",
        "a" * 1024,
    ],
)
def test_the_name_of_a_part_is_no_code(
    whole: bytes, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch writes the names of submodules into the code of a graph."""
    monkeypatch.chdir(tmp_path)
    program = Program(with_program(whole, of_part(0, lambda m: m.update(name=name))))
    call = program.calls[0]
    manifest = program.manifest(call)
    parts_of(manifest["engines"][0])[0]["name"] = name
    program.store_manifest(call, manifest)
    Path("a.pt2").write_bytes(program.data())
    with policy(fallback="error"), torch.no_grad():
        found = portrt.load("a.pt2").module()(X)
        torch.testing.assert_close(found, Product()(X))
    assert files.verify("a.pt2").ok
    assert not Path("portrt-marker").exists()


PARTS: dict[str, Callable[[Any, Any], Any]] = {
    "exchanged": lambda first, second: [
        first["data"].update(second["data"]),
        second["data"].update(blob=first["data"]["blob"] - 1),
    ],
    "a part within a part": lambda first, second: first.update(
        parts={"nodes": 1, "nodes_in_engines": 1, "engines": [copy.deepcopy(second)]}
    ),
    "the program itself": lambda first, _: first["data"].update(blob=2),
    "a blob that the call does not have": lambda first, _: first["data"].update(blob=99),
    "a digest of another blob": lambda first, second: first["data"].update(
        sha256=second["data"]["sha256"]
    ),
    "no such size": lambda first, _: first["data"].update(size=1),
    "weights that are not there": lambda first, _: first.update(weights=["nothing"]),
}


@pytest.mark.parametrize("name", PARTS)
def test_parts_that_are_not_there_are_refused(whole: bytes, tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.pt2"
    program = Program(whole)
    call = program.calls[0]
    manifest = program.manifest(call)
    PARTS[name](*parts_of(manifest["engines"][0]))
    program.store_manifest(call, manifest)
    path.write_bytes(program.data())
    with policy(fallback="error"), pytest.raises((PackageError, NoUsableEngineError)):
        portrt.load(path).module()(X)


def test_counts_say_what_is_possible(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.pt2"
    program = Program(whole)
    manifest = program.manifest(program.calls[0])
    parts = manifest["engines"][0]["parts"]
    parts["nodes_in_engines"] = parts["nodes"] + 1
    program.store_manifest(program.calls[0], manifest)
    path.write_bytes(program.data())
    with pytest.raises(PackageError, match="'nodes_in_engines'") as caught:
        portrt.inspect(path)
    assert caught.value.field == "/engines/0/parts/nodes_in_engines"
    assert json.dumps(manifest)
