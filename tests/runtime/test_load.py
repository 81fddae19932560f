"""portrt.load: maps the file, checks what it says, and refuses damage with a reason."""

from __future__ import annotations

import gc
import json
import random
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.export import ExportedProgram

import portrt
from portrt.errors import LoadError, NoUsableEngineError, PackageError, PortrtError, SettingsError
from portrt.format.archive import Archive, engine_calls


def test_gives_the_numbers_of_the_model(saved: Path, model: torch.nn.Module) -> None:
    x = torch.randn(9, 8)
    torch.testing.assert_close(portrt.load(saved, verify=True).module()(x), model(x))


def test_reads_what_plain_torch_wrote(
    program: ExportedProgram, model: torch.nn.Module, tmp_path: Path
) -> None:
    torch.export.save(program, tmp_path / "a.pt2")
    x = torch.randn(9, 8)
    torch.testing.assert_close(portrt.load(tmp_path / "a.pt2").module()(x), model(x))


def test_reads_a_program_that_was_never_compiled(model: torch.nn.Module, tmp_path: Path) -> None:
    x = torch.randn(2, 8)
    torch.export.save(torch.export.export(model, (x,)), tmp_path / "a.pt2")
    torch.testing.assert_close(portrt.load(tmp_path / "a.pt2").module()(x), model(x))
    assert portrt.inspect(tmp_path / "a.pt2").blocks == ()


def test_constants_are_mapped_and_equal_what_torch_reads(saved: Path) -> None:
    mapped, read = portrt.load(saved).constants, torch.export.load(saved).constants
    assert set(mapped) == set(read)
    for name, value in read.items():
        assert torch.equal(mapped[name], value)
    ranges = [
        [int(bound, 16) for bound in line.split()[0].split("-")]
        for line in Path("/proc/self/maps").read_text().splitlines()
        if str(saved) in line
    ]
    for value in mapped.values():
        assert any(low <= value.data_ptr() < high for low, high in ranges)


def test_mapping_ends_with_the_program(saved: Path) -> None:
    program = portrt.load(saved)
    assert str(saved) in Path("/proc/self/maps").read_text()
    del program
    gc.collect()
    assert str(saved) not in Path("/proc/self/maps").read_text()


def test_what_is_written_to_a_loaded_tensor_stays_out_of_the_file(saved: Path) -> None:
    before = saved.read_bytes()
    for value in portrt.load(saved).constants.values():
        value.zero_()
    assert saved.read_bytes() == before


def test_mutated_buffer_counts_on_after_loading(tmp_path: Path) -> None:
    class Counter(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.count += 1
            return torch.relu(x) * self.count

    x = torch.randn(2, 3)
    program = portrt.compile(
        Counter().eval(), inputs=[x], engines="onnxruntime", output_format="exported_program"
    )
    portrt.save(program, tmp_path / "a.pt2")
    module = portrt.load(tmp_path / "a.pt2").module()
    for number in (1, 2, 3):
        torch.testing.assert_close(module(x), torch.relu(x) * number)
    assert module.get_buffer("count").item() == 3


def test_policy_goes_with_the_program(saved: Path, tmp_path: Path) -> None:
    x = torch.randn(2, 8)
    strict = portrt.load(saved, fallback="error", engines=[])
    with pytest.raises(NoUsableEngineError):
        strict.module()(x)
    portrt.save(strict, tmp_path / "strict.pt2")
    with pytest.raises(NoUsableEngineError):
        torch.export.load(tmp_path / "strict.pt2").module()(x)
    portrt.load(tmp_path / "strict.pt2", engines="onnxruntime").module()(x)


def test_unknown_policy_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="'gpu'"):
        portrt.load(tmp_path / "nothing.pt2", fallback="gpu")
    with pytest.raises(SettingsError, match="'tensorflow'"):
        portrt.load(tmp_path / "nothing.pt2", engines="tensorflow")


def test_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="there is no file"):
        portrt.load(tmp_path / "a.pt2")


@pytest.mark.parametrize(
    "content",
    [b"", b"PK", b"\0" * 5000, random.Random(0).randbytes(3000)],
    ids=["empty", "magic", "zeros", "noise"],
)
def test_file_that_is_no_zip(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pt2").write_bytes(content)
    with pytest.raises(LoadError, match="is not a zip file, or is truncated"):
        portrt.load(tmp_path / "a.pt2")


def test_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="cannot be read"):
        portrt.load(tmp_path)


def test_torchscript_file_is_refused(program: ExportedProgram, tmp_path: Path) -> None:
    portrt.save(program, tmp_path / "a.ts", output_format="torchscript")
    with pytest.raises(LoadError, match="TorchScript"):
        portrt.load(tmp_path / "a.ts")


def test_file_cut_short_anywhere(saved: Path, tmp_path: Path) -> None:
    whole = saved.read_bytes()
    for length in range(0, len(whole), 1531):
        (tmp_path / "a.pt2").write_bytes(whole[:length])
        with pytest.raises(LoadError):
            portrt.load(tmp_path / "a.pt2")


def _flip(path: Path, offset: int, saved: Path) -> None:
    content = bytearray(saved.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("label", ["weights", "source", "engine"])
def test_flipped_byte_is_found_by_verify(saved: Path, tmp_path: Path, label: str) -> None:
    (call,) = engine_calls(Archive(saved))
    manifest = call.manifest
    blob = {
        "weights": manifest.weights,
        "source": manifest.source,
        "engine": manifest.engines[0].data,
    }[label]
    assert blob is not None
    record = call.blobs[blob.index]
    _flip(tmp_path / "a.pt2", record.offset + record.size // 2, saved)
    with pytest.raises(PackageError, match=f"{label}.* of block_0 is damaged"):
        portrt.load(tmp_path / "a.pt2", verify=True)


@pytest.mark.parametrize("load", [portrt.load, torch.export.load])
def test_flipped_byte_in_an_engine_is_found_before_it_is_opened(
    saved: Path, tmp_path: Path, load: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    (call,) = engine_calls(Archive(saved))
    record = call.blobs[call.manifest.engines[0].data.index]
    _flip(tmp_path / "a.pt2", record.offset + 100, saved)
    module = load(tmp_path / "a.pt2").module()
    opened: list[Any] = []
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *a, **k: opened.append(a))
    with pytest.raises(PackageError, match="engine onnxruntime of block_0 is damaged"):
        module(torch.randn(2, 8))
    assert not opened


def test_flipped_bytes_anywhere_give_an_error_of_ours_or_right_numbers(
    saved: Path, tmp_path: Path, model: torch.nn.Module
) -> None:
    """In one new process, so that a crash of native code would be seen."""
    size = saved.stat().st_size
    offsets = list(range(0, size, max(1, size // 150)))
    x = torch.randn(3, 8)
    torch.save((x, model(x).detach()), tmp_path / "expected.pt")
    code = (
        "import sys, json, torch, portrt\n"
        "x, y = torch.load(sys.argv[2])\n"
        "whole, path, counts = open(sys.argv[1], 'rb').read(), sys.argv[3], {}\n"
        "for offset in json.loads(sys.argv[4]):\n"
        "    content = bytearray(whole)\n"
        "    content[offset] ^= 64\n"
        "    open(path, 'wb').write(content)\n"
        "    try:\n"
        "        found = portrt.load(path, verify=True).module()(x)\n"
        "        result = 'right' if torch.allclose(found, y, atol=1e-5) else 'WRONG'\n"
        "    except portrt.PortrtError as err:\n"
        "        result = 'refused'\n"
        "    counts.setdefault(result, []).append(offset)\n"
        "print(json.dumps(counts))\n"
    )
    done = subprocess.run(
        [
            *(sys.executable, "-W", "ignore", "-c", code),
            *(saved, tmp_path / "expected.pt", tmp_path / "a.pt2", json.dumps(offsets)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    counts = json.loads(done.stdout)
    assert set(counts) <= {"right", "refused"}, counts
    assert len(counts["refused"]) > 50


def _rewrite(saved: Path, target: Path, change: Callable[[dict[str, bytes]], None]) -> None:
    """Another zip of the same records, after `change`."""
    with zipfile.ZipFile(saved) as archive:
        records = {info.filename: archive.read(info) for info in archive.infolist()}
    change(records)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name, content in records.items():
            archive.writestr(name, content)


def _edit_manifest(records: dict[str, bytes], change: Callable[[dict[str, Any]], None]) -> None:
    (name,) = (name for name in records if name.endswith("models/model.json"))
    model = json.loads(records[name])
    for node in model["graph_module"]["graph"]["nodes"]:
        for item in node["inputs"]:
            if item["name"] == "manifest":
                manifest = json.loads(item["arg"]["as_string"])
                change(manifest)
                item["arg"]["as_string"] = json.dumps(
                    manifest, sort_keys=True, separators=(",", ":")
                )
    records[name] = json.dumps(model).encode()


def _set(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(manifest: dict[str, Any]) -> None:
        target: Any = manifest
        *parents, last = path.split(".")
        for part in parents:
            target = target[int(part)] if part.isdigit() else target[part]
        target[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("format", 999), "format version 999"),
        (_set("format", None), "format version None"),
        (_set("weights.size", 7), "has 1520 bytes"),
        (_set("source.blob", 55), "refers to blob 55"),
        (_set("engines.0.data.blob", 0), "are one blob"),
        (_set("engines.0.data.size", 10**15), "bytes"),
        (_set("blob_count", 2), "blob"),
        (_set("inputs.0.dtype", "float7"), "float7"),
        (_set("outputs.0.shape", [["dim", 5, 0]]), "refers to"),
        (_set("name", 7), "'name'"),
    ],
)
def test_manifest_that_lies_is_refused_at_load(
    saved: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    _rewrite(saved, tmp_path / "a.pt2", lambda records: _edit_manifest(records, change))
    with pytest.raises(PackageError, match=message):
        portrt.load(tmp_path / "a.pt2")
    with pytest.raises(PackageError, match=message):
        portrt.inspect(tmp_path / "a.pt2")


def test_rewritten_zip_without_a_change_loads(
    saved: Path, tmp_path: Path, model: torch.nn.Module
) -> None:
    """What the tests above build on; also: records of another writer are not aligned."""
    _rewrite(saved, tmp_path / "a.pt2", lambda records: None)
    x = torch.randn(2, 8)
    torch.testing.assert_close(portrt.load(tmp_path / "a.pt2").module()(x), model(x))


def _without(name: str) -> Callable[[dict[str, bytes]], None]:
    def change(records: dict[str, bytes]) -> None:
        for key in [key for key in records if key.endswith(name)]:
            del records[key]

    return change


@pytest.mark.parametrize(
    "name",
    [
        "models/model.json",
        "archive_format",
        "data/constants/tensor_0",
        "data/constants/model_constants_config.json",
        "data/weights/model_weights_config.json",
        "data/sample_inputs/model.pt",
    ],
)
def test_record_that_is_missing(saved: Path, tmp_path: Path, name: str) -> None:
    _rewrite(saved, tmp_path / "a.pt2", _without(name))
    with pytest.raises(PortrtError):
        portrt.load(tmp_path / "a.pt2")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"config": 5}', b"[" * 10**6])
@pytest.mark.parametrize("name", ["models/model.json", "model_constants_config.json"])
def test_json_that_is_none_of_torchs(
    saved: Path, tmp_path: Path, name: str, content: bytes
) -> None:
    def change(records: dict[str, bytes]) -> None:
        for key in records:
            if key.endswith(name):
                records[key] = content

    _rewrite(saved, tmp_path / "a.pt2", change)
    with pytest.raises(LoadError):
        portrt.load(tmp_path / "a.pt2")


def test_compressed_record_is_refused(saved: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(saved) as archive:
        records = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(tmp_path / "a.pt2", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    with pytest.raises(LoadError, match="compressed"):
        portrt.load(tmp_path / "a.pt2")


def test_record_that_stands_twice_is_refused(saved: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(saved) as archive:
        infos = archive.infolist()
        with zipfile.ZipFile(tmp_path / "a.pt2", "w") as other:
            for info in infos:
                other.writestr(info.filename, archive.read(info))
            with pytest.warns(UserWarning, match="Duplicate name"):
                other.writestr(infos[1].filename, b"another")
    with pytest.raises(LoadError, match="twice"):
        portrt.load(tmp_path / "a.pt2")


@pytest.mark.parametrize("was_on", [True, False])
def test_the_collector_is_left_as_it_was(was_on: bool, saved: Path, tmp_path: Path) -> None:
    (gc.enable if was_on else gc.disable)()
    try:
        portrt.load(saved)
        assert gc.isenabled() is was_on
        with pytest.raises(LoadError):
            portrt.load(tmp_path / "nothing.pt2")
        assert gc.isenabled() is was_on
    finally:
        gc.enable()
