"""Programs of another form than torch's, edited, extracted and loaded: errors of portrt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from hostile_mutations import Program, Zip
from onnx import TensorProto, helper
from tiny import shared

import portrt
from portrt import files
from portrt.errors import LoadError, NoUsableEngineError, PackageError
from portrt.runtime import policy

X = torch.linspace(-1, 1, 24).view(3, 8)
SECRET = b"TOPSECRET-0123456789abcdefghijklmnopqrstuvwxyz!!"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("forms") / "model.pt2"
    portrt.save(shared("onnxruntime"), path)
    return path.read_bytes()


Edit = Callable[[Program], Any]
FORMS: dict[str, Edit] = {
    "an input is a text": lambda p: p.graph["inputs"].__setitem__(0, "x"),
    "inputs is a number": lambda p: p.graph.update(inputs=3),
    "inputs is null": lambda p: p.graph.update(inputs=None),
    "no values": lambda p: p.graph.pop("tensor_values"),
    "values is a list": lambda p: p.graph.update(tensor_values=[]),
    "more inputs than descriptions": lambda p: p.graph["inputs"].append(
        {"as_tensor": {"name": "q"}}
    ),
    "more descriptions than inputs": lambda p: p.graph["inputs"].pop(),
    "no outputs": lambda p: p.graph.pop("outputs"),
    "a node is null": lambda p: p.graph["nodes"].insert(0, None),
    "a node has no inputs": lambda p: p.graph["nodes"][0].pop("inputs"),
    "a target is a number": lambda p: p.graph["nodes"][0].update(target=3),
    "no signature": lambda p: p.model["graph_module"].pop("signature"),
    "two kinds of one argument": lambda p: p.graph["inputs"][0].update(as_int=3),
    "a size is a text": lambda p: next(iter(p.graph["tensor_values"].values())).update(sizes="x"),
    "constants is a list": lambda p: p.constants.update(config=[]),
    "a constant without description": lambda p: next(iter(p.constants["config"].values())).pop(
        "tensor_meta"
    ),
    "nested too deep": lambda p: p.graph["nodes"][0]["inputs"].append(
        {"name": "deep", "arg": _nested(300), "kind": 1}
    ),
}


def _nested(depth: int) -> Any:
    inner: Any = {"as_int": 1}
    for _ in range(depth):
        inner = {"as_string_to_argument": {"a": inner}}
    return inner


@pytest.mark.parametrize("name", FORMS)
def test_a_program_of_another_form_is_refused(whole: bytes, tmp_path: Path, name: str) -> None:
    path, output = tmp_path / "a.pt2", tmp_path / "out.pt2"
    program = Program(whole)
    FORMS[name](program)
    path.write_bytes(program.data())
    for use in (
        lambda: portrt.load(path),
        lambda: portrt.load(path, output_format="module"),
        lambda: files.strip(path, source=True, output=output),
        lambda: files.extract(path, "onnx", output),
        lambda: files.add_engine(path, "onnxruntime", output=output),
    ):
        with pytest.raises((LoadError, PackageError)):
            use()
    assert not output.exists()


def _with_engine(whole: bytes, change: Callable[[bytes], bytes]) -> bytes:
    program = Program(whole)
    (call,) = program.calls
    program.change_blob(call, program.manifest(call)["engines"][0]["data"], change)
    return program.data()


@pytest.mark.parametrize("data", [b"\xff" * 500, b"", b"location"], ids=["bytes", "empty", "key"])
def test_an_engine_that_is_no_model_is_not_extracted(
    whole: bytes, tmp_path: Path, data: bytes
) -> None:
    path = tmp_path / "a.pt2"
    path.write_bytes(_with_engine(whole, lambda _: data))
    if data:
        with pytest.raises(PackageError, match="is no ONNX model"):
            files.extract(path, "onnx", tmp_path / "out.onnx")
    with policy(fallback="error"), pytest.raises(NoUsableEngineError, match="could not be opened"):
        portrt.load(path).module()(X)


def _leaking(location: str, place: str) -> Callable[[bytes], bytes]:
    """Make the engine return what is at a location, as the weight or as a constant."""

    def change(data: bytes) -> bytes:
        made = onnx.load_model_from_string(data)
        tensor = TensorProto(name="leak", data_type=1, dims=[3, 4], data_location=1)
        for key, value in (("location", location), ("offset", "0"), ("length", "48")):
            tensor.external_data.add(key=key, value=value)
        output = made.graph.output[0].name
        del made.graph.node[:], made.graph.initializer[:]
        if place == "weight":
            made.graph.initializer.append(tensor)
            made.graph.node.append(helper.make_node("Identity", ["leak"], [output]))
        else:
            node = made.graph.node.add(op_type="Constant", output=[output])
            node.attribute.add(name="value", type=onnx.AttributeProto.TENSOR).t.CopyFrom(tensor)
        return made.SerializeToString()

    return change


@pytest.mark.parametrize("place", ["weight", "constant"])
@pytest.mark.parametrize("location", ["secret.bin", "{}/secret.bin", "../a/secret.bin"])
def test_no_file_comes_out_of_an_engine(
    whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, location: str
) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "secret.bin").write_bytes(SECRET)
    monkeypatch.chdir(folder)
    program = Program(_with_engine(whole, _leaking(location.format(folder), place)))
    (call,) = program.calls
    manifest = program.manifest(call)
    manifest["outputs"][0]["shape"] = [3, 4]
    manifest["engines"][0]["weights"] = []
    program.store_manifest(call, manifest)
    (folder / "a.pt2").write_bytes(program.data())
    with policy(fallback="error"), pytest.raises(NoUsableEngineError, match="in another file"):
        portrt.load("a.pt2").module()(X)
    with pytest.raises(PackageError, match="in another file"):
        files.extract("a.pt2", "onnx", "out.onnx")


def test_sizes_that_refer_to_later_sizes_are_refused(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.pt2"
    program = Program(whole)
    (call,) = program.calls
    manifest = program.manifest(call)
    manifest["inputs"][0]["shape"][0] = ["dim", 0, 1]
    program.store_manifest(call, manifest)
    path.write_bytes(program.data())
    with pytest.raises(portrt.PortrtError):
        files.verify(path)


def test_a_source_without_a_call_of_its_own_is_refused(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.pt2"
    program = Program(whole)
    (call,) = program.calls

    def change(data: bytes) -> bytes:
        inner = Zip.of(data)
        tree = inner.json("models/model.json")
        tree["graph_module"]["module_call_graph"][0]["fqn"] = "x"
        inner.store("models/model.json", tree)
        return inner.data()

    program.change_blob(call, program.manifest(call)["source"], change)
    path.write_bytes(program.data())
    with pytest.raises(PackageError, match="the source of block_0"):
        files.verify(path)
