"""verify: engines against their sources, with engines that are made to be wrong."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
import torch
from tiny import model, shared

from portrt import files
from portrt.errors import InputError, PackageError
from portrt.format.archive import Archive, engine_calls
from portrt.format.editor import ProgramEditor
from portrt.format.manifest import Blob


@pytest.fixture(scope="session")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed."""
    path = tmp_path_factory.mktemp("verify") / "a.pt2"
    torch.export.save(shared("tensorrt_rtx", "onnxruntime"), path)
    return path


@pytest.fixture(scope="session")
def wrong(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with an engine that computes tanh where the model has relu, made by hand."""
    room = tmp_path_factory.mktemp("wrong")
    files.extract(file, "plan", room / "engine.onnx", engine="onnxruntime")
    graph = onnx.load(room / "engine.onnx", load_external_data=False)
    (node,) = (node for node in graph.graph.node if node.op_type == "Relu")
    node.op_type = "Tanh"
    draft = ProgramEditor(file)
    (call,) = draft.calls
    entry = {k: v for k, v in call.entry["engines"][1].items() if k != "data"}
    data = graph.SerializeToString()
    entry["data"] = Blob.of(len(call.blobs), data).to_json()
    call.add_engine(entry, [draft.add_blob(call, "engine", data)], first=True)
    draft.write(room / "a.pt2", None)
    return room / "a.pt2"


def test_engines_that_agree(file: Path) -> None:
    found = files.verify(file)
    assert found.ok
    assert found.compared == 1
    rtx, ort = found.blocks[0].engines
    assert not rtx.ran
    assert rtx.reason
    assert ort.outputs[0]["name"] == "linear_1"
    assert 0 <= ort.outputs[0]["max_abs"] < 1e-5
    json.dumps(found.to_json())


def test_an_engine_that_does_not(wrong: Path) -> None:
    found = files.verify(wrong)
    assert not found.ok
    first, _, right = found.blocks[0].engines
    assert not first.ok
    assert first.outputs[0]["max_rel"] > 0.01
    assert right.ok


def test_given_inputs_reach_the_blocks(wrong: Path) -> None:
    """By hand: the largest difference between the model and the model with tanh."""
    x = torch.randn(7, 8)
    mlp = model()
    with torch.no_grad():
        hidden = mlp.first(x)
        wanted = (mlp.second(torch.tanh(hidden)) - mlp.second(torch.relu(hidden))).abs().max()
    found = files.verify(wrong, [x]).blocks[0].engines[0].outputs[0]["max_abs"]
    assert found == pytest.approx(float(wanted), rel=0.01)


def test_inputs_that_do_not_fit(file: Path) -> None:
    with pytest.raises(InputError, match="2 inputs were given"):
        files.verify(file, [torch.ones(1, 8), torch.ones(1)])
    with pytest.raises(InputError, match="'x'"):
        files.verify(file, [torch.ones(1, 9)])


def test_without_source_nothing_is_compared(file: Path, tmp_path: Path) -> None:
    files.strip(file, source=True, output=tmp_path / "a.pt2")
    found = files.verify(tmp_path / "a.pt2")
    assert found.ok
    assert found.compared == 0
    assert "it was stripped" in found.blocks[0].reason


def test_damaged_engines_are_not_opened(file: Path, tmp_path: Path) -> None:
    content = bytearray(file.read_bytes())
    record = engine_calls(Archive(file))[0].blobs[3]
    content[record.offset + 9] ^= 1
    (tmp_path / "a.pt2").write_bytes(content)
    with pytest.raises(PackageError, match="engine onnxruntime of block_0 is damaged"):
        files.verify(tmp_path / "a.pt2")


def test_an_engine_that_does_not_open_has_failed(file: Path, tmp_path: Path) -> None:
    draft = ProgramEditor(file)
    (call,) = draft.calls
    entry = {k: v for k, v in call.entry["engines"][1].items() if k != "data"}
    entry["data"] = Blob.of(len(call.blobs), b"junk").to_json()
    call.add_engine(entry, [draft.add_blob(call, "engine", b"junk")], first=False)
    draft.write(tmp_path / "a.pt2", None)
    found = files.verify(tmp_path / "a.pt2")
    assert not found.ok
    assert "cannot open the engine" in found.blocks[0].engines[2].reason
