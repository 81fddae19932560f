"""Sessions over a mapped file: the same numbers, and no way to take them from another file."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny
import torch
from torch.nn import functional

import portrt
from portrt import weights
from portrt.engines.onnxruntime import native
from portrt.engines.onnxruntime.native import _options

X = torch.linspace(-1, 1, 24).view(3, 8)


@pytest.fixture(autouse=True)
def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_LARGE_BYTES", 1)
    monkeypatch.setattr(weights, "_LARGE_BYTES", 1)


@pytest.fixture
def from_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many weights each session took from memory."""
    taken: list[int] = []
    real = native._values

    def spy(*args: Any) -> Any:
        found = real(*args)
        taken.append(len(found))
        return found

    monkeypatch.setattr(native, "_values", spy)
    yield taken


@pytest.fixture
def path(tmp_path: Path) -> Path:
    portrt.save(tiny.compiled("onnxruntime"), tmp_path / "mlp.pt2")
    return tmp_path / "mlp.pt2"


def ran(program: Any) -> None:
    torch.testing.assert_close(program.module()(X), tiny.model()(X).detach())


def test_a_loaded_program_maps_its_weights_from_its_file(
    path: Path, from_memory: list[int]
) -> None:
    ran(portrt.load(path))
    assert from_memory == []


def test_compile_maps_them_from_a_temporary_file(from_memory: list[int]) -> None:
    ran(tiny.compiled("onnxruntime"))
    assert from_memory == []


def test_the_file_of_a_program_is_the_same(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_LARGE_BYTES", 1 << 60)
    portrt.save(tiny.compiled("onnxruntime"), path.with_name("small.pt2"))
    one, other = portrt.load(path), portrt.load(path.with_name("small.pt2"))
    assert torch.equal(one.constants["portrt_weights"], other.constants["portrt_weights"])


@pytest.mark.parametrize("kind", ["file", "link", "other folder"])
def test_any_path_will_do(
    kind: str, path: Path, from_memory: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = path
    if kind == "link":
        (path.parent / "folder").mkdir()
        place = path.parent / "folder" / "link.pt2"
        place.symlink_to(path)
    elif kind == "other folder":
        monkeypatch.chdir(path.parent)
        place = Path("mlp.pt2")
    program = portrt.load(place)
    monkeypatch.chdir("/")
    ran(program)
    assert from_memory == []


def other_weights(path: Path) -> Path:
    """A file of the same size whose weights are all 7."""
    program = portrt.load(path)
    image = program.constants["portrt_weights"].numpy().tobytes()
    content = path.read_bytes()
    start = content.index(image)
    floats = (len(image) - int.from_bytes(image[:8], "little") - 8) // 4
    end = start + len(image)
    made = path.with_name("other.pt2")
    data = np.full(floats, 7.0, np.float32).tobytes()
    made.write_bytes(content[: end - len(data)] + data + content[end:])
    return made


@pytest.mark.parametrize("when", ["before", "meanwhile", "removed"])
def test_a_file_that_took_its_place_is_not_read(
    when: str, path: Path, from_memory: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = other_weights(path)
    program = portrt.load(path)
    if when == "before":
        other.replace(path)
    elif when == "removed":
        path.unlink()
    else:
        real = native._session

        def replaces(*args: Any) -> Any:
            if other.exists():
                other.replace(path)
            return real(*args)

        monkeypatch.setattr(native, "_session", replaces)
    ran(program)
    assert from_memory == [4]


def test_the_other_file_would_be_read(path: Path, from_memory: list[int]) -> None:
    """So that the test above can fail."""
    found = portrt.load(other_weights(path)).module()(X)
    assert from_memory == []
    assert not torch.allclose(found, tiny.model()(X))


def test_a_model_with_other_external_weights_gets_none_from_the_folder(
    path: Path, from_memory: list[int]
) -> None:
    """It could name any file beside its own."""
    (path.parent / "secret.bin").write_bytes(bytes(64))
    call = tiny.call_of(portrt.load(path))
    model = onnx.load_model_from_string(call.blobs[-1].numpy().tobytes())
    held = next(t for t in model.graph.initializer if t.data_location == t.EXTERNAL)
    forged = onnx.TensorProto(name="forged", dims=[4], data_type=1, data_location=held.EXTERNAL)
    for key, value in {"location": "secret.bin", "offset": "0", "length": "16"}.items():
        forged.external_data.add(key=key, value=value)
    model.graph.initializer.append(forged)
    image = weights.WeightsImage(portrt.load(path).constants["portrt_weights"])
    names = call.engine("onnxruntime")["weights"]
    data = model.SerializeToString()
    assert native._over_file(data, names, image, _options(low_memory=False)) is None


def test_what_cannot_be_mapped_is_taken_from_memory(
    path: Path, from_memory: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ONNX Runtime that refuses the place does not take the engine away."""
    real = native._session
    tries: list[int] = []

    def refuses(data: bytes, options: Any) -> Any:
        tries.append(len(data))
        if len(tries) == 1:
            raise RuntimeError("this path is not for me")
        return real(data, options)

    monkeypatch.setattr(native, "_session", refuses)
    ran(portrt.load(path))
    assert len(tries) == 2


def test_a_copy_of_the_program_in_memory_runs(path: Path, from_memory: list[int]) -> None:
    shutil.copy(path, path.with_name("copy.pt2"))
    ran(torch.export.load(path.with_name("copy.pt2")))
    assert len(from_memory) == 1


class Turned(torch.nn.Module):
    """A weight beside what is transposed: ONNX Runtime's optimizer may transpose it, too."""

    def __init__(self, function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function
        self.weight = torch.nn.Parameter(torch.randn(48, 48))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x.T.relu(), self.weight).T


TAKERS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "added": lambda x, weight: x + weight,
    "chosen": lambda x, weight: torch.where(x > 0, x, weight),
    "joined": lambda x, weight: torch.cat([x, weight]),
    "multiplied": lambda x, weight: x @ weight,
    "multiplied, turned": lambda x, weight: functional.linear(x, weight),
    "looked up": lambda x, weight: functional.embedding(x[0].long(), weight),
    "convolved": lambda x, weight: functional.conv1d(x, weight.view(48, 48, 1)),
}


@pytest.mark.parametrize("where", ["mapped", "in memory"])
@pytest.mark.parametrize("taker", TAKERS)
def test_weights_that_the_optimizer_changes_in_place(
    taker: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen: it changes a value that `SessionOptions.add_initializer` then changes back."""
    if where == "in memory":
        monkeypatch.setattr(native, "region_at", lambda *_: None)
    torch.manual_seed(0)
    model, x = Turned(TAKERS[taker]).eval(), torch.rand(48, 48) * 3 - 1
    program = portrt.compile(
        model,
        inputs=[x],
        engines="onnxruntime",
        min_block_size=1,
        check="off",
        output_format="exported_program",
    )
    assert isinstance(program, torch.export.ExportedProgram)
    assert portrt.runtime.report(program)[0].runs_as == "onnxruntime"
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), model(x))
