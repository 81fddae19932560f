"""Files that were changed at random: an error of ours after bounded work, or what they say holds.

The quick test tries 3,000 files; `pytest -m slow` tries 100,000.
"""

from __future__ import annotations

import copy
import io
import json
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from effort import steps
from torch.export import ExportedProgram

import portrt
from portrt.errors import LoadError, PackageError
from portrt.format.archive import CONSTANTS_CONFIG, MODEL

# Tuples, which JSON writes as lists: no later change gets into them.
HOSTILE: list[Any] = [
    *(None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**400, 1e308, 0.5),
    *("", "x", "a" * 10**5, "../../etc/passwd", "data/constants/../../x", "\0", "\ud800", "0" * 64),
    *((), {}, ((),), (None,), {"as_int": -5}, ("dim", 0, 0), ("add", 1), ("pow", 9, 16)),
    *(("mod", 1, 0), ("mul", *[2] * 200)),
]
for depth in (50, 500):
    nested: Any = 0
    for _ in range(depth):
        nested = ("add", nested, 1)
    HOSTILE.append(nested)

# Of one file; the one that nobody changed takes some 6,000.
MAX_STEPS = 20_000


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("fuzz") / "model.pt2"
    layers = [torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4)]
    program = portrt.compile(
        torch.nn.Sequential(*layers).eval(),
        inputs=[torch.randn(3, 8)],
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},),
        engines="onnxruntime",
        output_format="exported_program",
    )
    assert isinstance(program, ExportedProgram)
    portrt.save(program, path)
    return path.read_bytes()


def _bytes_changed(whole: bytes, chance: random.Random) -> bytes:
    """Flipped, cut, repeated or foreign bytes, anywhere in the zip file."""
    content = bytearray(whole)
    for _ in range(chance.choice([1, 1, 2, 8])):
        # The directory, at the end, is the part that is read first and trusted least.
        start = chance.choice([0, len(content) - 1500])
        place = chance.randrange(max(start, 0), len(content))
        size = chance.choice([1, 1, 2, 4, 8, 64])
        kind = chance.randrange(4)
        if kind == 0:
            content[place] ^= 1 << chance.randrange(8)
        elif kind == 1:
            content[place : place + size] = chance.randbytes(size)
        elif kind == 2:
            content[place : place + size] = b"\xff" * size
        else:
            del content[place : place + size]
    return bytes(content)


def _paths(tree: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [here] if here else []
    items = (
        tree.items()
        if isinstance(tree, dict)
        else enumerate(tree)
        if isinstance(tree, list)
        else ()
    )
    for key, value in items:
        found += _paths(value, (*here, key))
    return found


def _json_changed(tree: Any, paths: list[tuple[Any, ...]], chance: random.Random) -> Any:
    changed = copy.deepcopy(tree)
    for _ in range(chance.choice([1, 1, 1, 3])):
        *parents, last = chance.choice(paths)
        target = changed
        try:
            for key in parents:
                target = target[key]
            if chance.random() < 0.2:
                del target[last]
            else:
                value = chance.choice(HOSTILE)
                target[last] = dict(value) if isinstance(value, dict) else value
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took that part away
    return changed


class _Rewriter:
    """The same zip with other JSON in it, of right length and CRC-32."""

    def __init__(self, whole: bytes) -> None:
        with zipfile.ZipFile(io.BytesIO(whole)) as archive:
            self.records = {info.filename: archive.read(info) for info in archive.infolist()}
        self.trees = {}
        for name in (MODEL, CONSTANTS_CONFIG):
            (key,) = (key for key in self.records if key.endswith(name))
            self.trees[key] = json.loads(self.records[key])
        self.model = next(iter(self.trees))
        nodes = self.trees[self.model]["graph_module"]["graph"]["nodes"]
        (self.argument,) = (
            item["arg"] for node in nodes for item in node["inputs"] if item["name"] == "manifest"
        )
        self.manifest = json.loads(self.argument["as_string"])
        self.paths = {key: _paths(tree) for key, tree in self.trees.items()}
        self.manifest_paths = _paths(self.manifest)

    def __call__(self, chance: random.Random) -> bytes:
        records = dict(self.records)
        if chance.random() < 0.5:
            changed = _json_changed(self.manifest, self.manifest_paths, chance)
            kept = self.argument["as_string"]
            self.argument["as_string"] = json.dumps(changed, sort_keys=True, separators=(",", ":"))
            records[self.model] = json.dumps(self.trees[self.model]).encode()
            self.argument["as_string"] = kept
        else:
            key = chance.choice(list(self.trees))
            changed = _json_changed(self.trees[key], self.paths[key], chance)
            records[key] = json.dumps(changed).encode()
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
            for name, content in records.items():
                archive.writestr(name, content)
        return out.getvalue()


def _attack(make: Callable[[random.Random], bytes], path: Path, seeds: range) -> int:
    """Inspect many files; how many were refused."""
    refused = 0
    for seed in seeds:
        content = make(random.Random(seed))
        path.write_bytes(content)
        try:
            with steps(MAX_STEPS):
                info = portrt.inspect(path)
                json.dumps(info.to_json(), allow_nan=False)
        except (LoadError, PackageError) as err:
            assert err.happened
            assert err.expected
            assert err.remedy
            refused += 1
        except BaseException as err:
            raise AssertionError(f"seed {seed} gives {type(err).__name__}") from err
    return refused


@pytest.mark.parametrize(
    "count", [1500, pytest.param(50_000, marks=pytest.mark.slow)], ids=["quick", "many"]
)
def test_changed_bytes(whole: bytes, tmp_path: Path, count: int) -> None:
    refused = _attack(lambda c: _bytes_changed(whole, c), tmp_path / "a.pt2", range(count))
    assert refused > count / 4


@pytest.mark.parametrize(
    "count", [1500, pytest.param(50_000, marks=pytest.mark.slow)], ids=["quick", "many"]
)
def test_changed_json(whole: bytes, tmp_path: Path, count: int) -> None:
    refused = _attack(_Rewriter(whole), tmp_path / "a.pt2", range(count))
    assert refused > count / 4


def test_changed_json_loaded_for_real(whole: bytes, tmp_path: Path) -> None:
    """The same through torch: what is not refused loads, and what loads runs or says why not."""
    rewrite, path = _Rewriter(whole), tmp_path / "a.pt2"
    x = torch.randn(2, 8)
    for seed in range(60):
        path.write_bytes(rewrite(random.Random(seed)))
        try:
            program = portrt.load(path)
        except portrt.PortrtError:
            continue
        try:
            program.module()(x)
        except Exception as err:
            assert str(err), seed


class Untouchable:
    """Must not be looked at."""

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(f"{name} was read")


def test_a_million_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory of 10^6 entries is refused before any of them is looked at."""
    path = tmp_path / "a.pt2"
    entry = b"PK\x01\x02" + bytes(24) + (1).to_bytes(2, "little") + bytes(16) + b"x"
    directory = entry * 1_000_000
    end = b"PK\x06\x06" + (44).to_bytes(8, "little") + bytes(12)
    end += (10**6).to_bytes(8, "little") * 2 + len(directory).to_bytes(8, "little") + bytes(8)
    locator = b"PK\x06\x07" + bytes(4) + len(directory).to_bytes(8, "little") + bytes(4)
    last = b"PK\x05\x06" + bytes(4) + b"\xff" * 12 + bytes(2)
    path.write_bytes(directory + end + locator + last)
    real = zipfile.ZipFile.infolist

    def infolist(archive: zipfile.ZipFile) -> list[Any]:
        return [Untouchable() for _ in real(archive)]

    monkeypatch.setattr(zipfile.ZipFile, "infolist", infolist)
    with pytest.raises(LoadError, match="has 1000000 records"):
        portrt.inspect(path)
