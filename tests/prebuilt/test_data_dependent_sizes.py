"""Sizes of outputs that only the data decides, of a plan with NonZero for example.

The backend is a fake: it shows what torch and the runtime make of such sizes, and no numbers of
TensorRT.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_plans import FakeBackend, tensorrt_plan
from tiny import call_of, edit_program
from torch.export import ExportedProgram

import portrt
from portrt.engines.base import LayerTime
from portrt.errors import CaptureError, EngineError, PackageError, SettingsError
from portrt.format import manifest
from portrt.runtime.module import module_of

X = portrt.Input(min_shape=(1, 8), opt_shape=(4, 8), max_shape=(32, 8))


def found(x: torch.Tensor) -> list[torch.Tensor]:
    """Where x is above 0: places (n, 2), values (n,), and (batch, m) of the largest row count m."""
    places = (x > 0).nonzero()
    count = int((x > 0).sum(1).max()) if x.numel() else 0
    return [places, x[x > 0], x.sort(1, descending=True).values[:, :count].contiguous()]


def sizes(x: torch.Tensor) -> dict[str, torch.Tensor]:
    n = torch.library.get_ctx().new_dynamic_size(max=100)
    m = torch.library.get_ctx().new_dynamic_size()
    return {
        "places": x.new_empty((n, 2), dtype=torch.int64),
        "values": x.new_empty(n),
        "rows": x.new_empty(x.shape[0], m),
    }


def adopted(outputs: Any = sizes, **options: Any) -> ExportedProgram:
    program = portrt.from_plan(
        tensorrt_plan(), {"x": X}, outputs, output_format="exported_program", **options
    )
    assert isinstance(program, ExportedProgram)
    edit_program(program, lambda e: e["engines"][0]["requires"].update(device=["cpu"]))
    return program


def again(program: ExportedProgram) -> ExportedProgram:
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    buffer.seek(0)
    return torch.export.load(buffer)


def assert_runs(module: Any, smallest: int = 1) -> None:
    """Several counts in turn, none at all among them."""
    for seed, low in ((0, -1.0), (1, -0.1), (2, -2.0), (3, 0.4)):
        generator = torch.Generator().manual_seed(seed)
        x = torch.rand(seed + smallest, 8, generator=generator) + low
        for one, other in zip(module(x), found(x), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.fixture(autouse=True)
def finds(fake: FakeBackend) -> FakeBackend:
    fake.answer = found
    return fake


def test_the_manifest_names_them() -> None:
    entry = call_of(adopted()).entry
    assert entry["format"] == 2
    shapes = [spec["shape"] for spec in entry["outputs"]]
    assert shapes[0][1] == 2
    assert shapes[0][0] == shapes[1][0] == {"unknown": 100, "symbol": shapes[0][0]["symbol"]}
    assert shapes[2][0] == ["dim", 0, 0]
    assert shapes[2][1] == {"unknown": None, "symbol": shapes[2][1]["symbol"]}
    assert shapes[2][1]["symbol"] != shapes[0][0]["symbol"]


def test_the_session_is_told_what_is_known(finds: FakeBackend) -> None:
    module_of(adopted())(torch.ones(3, 8))
    assert finds.shapes == [((-1, 2), (-1,), (3, -1))]


def test_it_runs_in_every_form_of_the_program() -> None:
    program = adopted()
    assert_runs(module_of(program))
    assert_runs(program.module())
    assert_runs(again(program).module())
    assert_runs(again(again(program)).module())
    exported = torch.export.export(
        program.module(), (torch.ones(2, 8),), dynamic_shapes=({0: torch.export.Dim.AUTO},)
    )
    assert_runs(exported.module())
    assert_runs(again(exported).module())
    # Tracing again, torch excludes a batch of 1 from a shape (batch, m) with unknown m, in words.
    assert_runs(program.run_decompositions().module(), smallest=2)
    assert_runs(torch.compile(program.module(), backend="aot_eager", dynamic=True))


class Around(torch.nn.Module):
    """What a user may compute from such outputs."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        places, values, rows = self.inner(x + 0)
        return x[places[:, 0]], values * 2, rows.sum(1)


def test_what_is_computed_from_them_is_exported_too() -> None:
    batch = torch.export.Dim("batch", min=1, max=32)
    around = torch.export.export(
        Around(adopted().module()), (torch.ones(2, 8),), dynamic_shapes=({0: batch},)
    )
    for seed in range(3):
        x = torch.randn(seed + 1, 8, generator=torch.Generator().manual_seed(seed))
        places, values, rows = found(x)
        got = again(around).module()(x)
        for one, other in zip(got, (x[places[:, 0]], values * 2, rows.sum(1)), strict=True):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda p, v, r: [p, v[1:], r], "is 24 and 23"),
        (lambda p, v, r: [p.repeat(5, 1), v.repeat(5), r], "is 120\n  Expected: at most 100"),
        (lambda p, v, r: [p[:, :1], v, r], r"output 'places' has the shape \(24, 1\)"),
        (lambda p, v, r: [p, v, r[:1]], r"output 'rows' has the shape \(1, 8\)"),
        (lambda p, v, r: [p, v[:, None], r], r"output 'values' has the shape \(24, 1\)"),
    ],
)
def test_a_size_against_the_promise_is_refused(finds: FakeBackend, answer: Any, words: str) -> None:
    """Before torch sees it: what it computes from a wrong size would be wrong."""
    finds.answer = lambda x: answer(*found(x))
    with pytest.raises(EngineError, match=words):
        module_of(adopted())(torch.ones(3, 8))


def test_such_a_program_is_profiled_like_any(
    finds: FakeBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The layers are what the backend's session tells of them."""
    asked: list[Any] = []

    def layer_times(self: FakeBackend, inputs: Any, shapes: Any, *, calls: int) -> list[LayerTime]:
        asked.append((shapes, calls))
        return []

    portrt.save(adopted(), tmp_path / "a.pt2")
    portrt.files.profile(tmp_path / "a.pt2", calls=2)
    assert asked == []
    monkeypatch.setattr(FakeBackend, "layer_times", layer_times)
    monkeypatch.setattr(FakeBackend, "supports_layer_times", True)
    profile = portrt.files.profile(tmp_path / "a.pt2", calls=2)
    assert asked == [(((-1, 2), (-1,), (4, -1)), 2)]
    assert [block.backend for block in profile.blocks] == ["tensorrt"]


def test_files_tell_them(tmp_path: Path) -> None:
    portrt.save(adopted(), tmp_path / "a.pt2")
    assert_runs(portrt.load(tmp_path / "a.pt2").module())
    (block,) = portrt.inspect(tmp_path / "a.pt2").blocks
    places, values, rows = (spec["shape"] for spec in block.outputs)
    assert places[0] == values[0] == "u0: data-dependent, at most 100"
    assert rows[1] == "u1: data-dependent"
    assert portrt.files.check(tmp_path / "a.pt2", "device=cpu").blocks


def test_a_meta_tensor_has_no_such_size() -> None:
    call = call_of(adopted())
    with pytest.raises(RuntimeError, match="data-dependent shape"):
        call(torch.empty(3, 8, device="meta"))


@pytest.mark.parametrize(
    "outputs",
    [
        lambda x, n: {"y": x.new_empty(2 * n), "n": x.new_empty(n)},
        lambda x, n: {"y": x.new_empty(x.shape[0] + n), "n": x.new_empty(n)},
    ],
)
def test_arithmetic_on_them_is_refused(outputs: Any) -> None:
    with pytest.raises(SettingsError, match="computed from a data-dependent one"):
        adopted(lambda x: outputs(x, torch.library.get_ctx().new_dynamic_size()))


def test_a_size_that_no_output_has_is_refused() -> None:
    def outputs(x: torch.Tensor) -> dict[str, torch.Tensor]:
        torch.library.get_ctx().new_dynamic_size()
        return {"y": x.new_empty(3)}

    with pytest.raises(CaptureError, match="cannot be traced: Pending unbacked symbols"):
        adopted(outputs)


# ---------------------------------------------------------------- the format


def text_of(edit: Any = lambda entry: None) -> str:
    return call_of(adopted()).edited(edit).text


def test_an_older_reader_refuses_it_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    text = text_of()
    monkeypatch.setattr(manifest, "FORMAT", 1)
    with pytest.raises(PackageError) as caught:
        manifest.decode.__wrapped__(text)
    assert caught.value.happened == "the program has format version 2"
    assert caught.value.expected == "a version from 1 to 1"
    assert caught.value.remedy == "install a newer portrt"


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ({"unknown": -1, "symbol": "u0"}, "'unknown'"),
        ({"unknown": "many", "symbol": "u0"}, "'unknown'"),
        ({"unknown": True, "symbol": "u0"}, "'unknown'"),
        ({"unknown": 2**63, "symbol": "u0"}, "'unknown'"),
        ({"symbol": "u0"}, "'unknown'"),
        ({"unknown": None}, "'symbol'"),
        ({"unknown": None, "symbol": 3}, "'symbol'"),
        ({"unknown": None, "symbol": "a\nb"}, "'symbol'"),
        ({"min": 1, "opt": 2, "max": 3, "symbol": "s"}, "'unknown'"),
    ],
)
def test_malformed_sizes(size: Any, words: str) -> None:
    text = text_of(lambda entry: entry["outputs"][0]["shape"].__setitem__(0, size))
    with pytest.raises(PackageError, match=words):
        manifest.decode(text)


def test_an_input_has_no_such_size() -> None:
    size = {"unknown": None, "symbol": "u0"}
    text = text_of(lambda entry: entry["inputs"][0]["shape"].__setitem__(0, size))
    with pytest.raises(PackageError, match="'min'"):
        manifest.decode(text)


def test_they_are_not_in_the_first_format() -> None:
    with pytest.raises(PackageError, match="in format version 1"):
        manifest.decode(text_of(lambda entry: entry.update(format=1)))
    assert json.loads(text_of())["format"] == 2
