"""What is shown of a file with an adopted plan, and what becomes of one that was tampered with."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from fake_plans import FakeBackend, tensorrt_plan
from tiny import Call, call_of, edit_program
from torch import nn
from torch.export import ExportedProgram

import portrt
from portrt.cli import cli
from portrt.engines.tensorrt.open import open_session
from portrt.errors import EngineError, PackageError
from portrt.format.manifest import decode
from portrt.format.plan_header import contradiction, read_plan_header
from portrt.runtime import policy
from portrt.runtime.select import FallbackWarning

PLAN = tensorrt_plan()
X = torch.zeros(2, 8)


class Sum(nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a.sin() + b


def adopted(plan: bytes = PLAN, **options: Any) -> ExportedProgram:
    program = portrt.from_plan(
        plan,
        {"left.0": X, "b": X},
        source=Sum().eval(),
        output_names=["total"],
        check="off",
        output_format="exported_program",
        **options,
    )
    assert isinstance(program, ExportedProgram)
    return program


def shown(path: Path) -> str:
    done = CliRunner().invoke(cli, ["inspect", str(path)], terminal_width=300)
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split())


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that no word of a table is broken."""
    monkeypatch.setenv("COLUMNS", "300")


def test_inspect_shows_what_a_plan_is(tmp_path: Path) -> None:
    portrt.save(adopted(), tmp_path / "a.pt2")
    text = shown(tmp_path / "a.pt2")
    assert "tensorrt 8.6.0.12; prebuilt" in text
    assert "cuda; compute capability 9.0; tensorrt 8.6.0.12 alone" in text
    assert "in the tensorrt engine a is 'left.0', add is 'total'" in text
    assert "trust" not in text


def test_inspect_shows_what_a_plan_for_later_versions_needs(tmp_path: Path) -> None:
    options: dict[str, Any] = {"version_compatible": True, "hardware_compatible": True}
    portrt.save(adopted(**options), tmp_path / "a.pt2")
    text = shown(tmp_path / "a.pt2")
    assert "compute capability 8.0 or newer" in text
    assert "tensorrt from 8.6.0.12, lean runtime outside; trust='host-code'" in text


def test_inspect_shows_that_there_is_no_source(tmp_path: Path) -> None:
    module = portrt.from_plan(PLAN, {"x": X}, {"y": X})
    portrt.save(module, tmp_path / "a.pt2")
    text = shown(tmp_path / "a.pt2")
    assert "block_0: no source, written by portrt" in text
    assert "no: there is no source to compare with" in text
    assert "in the tensorrt engine" not in text  # the names are the same


@pytest.mark.parametrize("bindings", [None, 3, {}, {"inputs": 3}, {"inputs": ["a"], "outputs": []}])
def test_inspect_survives_what_a_file_may_say(tmp_path: Path, bindings: Any) -> None:
    program = adopted()

    def edit(entry: dict[str, Any]) -> None:
        entry["engines"][0]["build"]["bindings"] = bindings

    edit_program(program, edit)
    torch.export.save(program, tmp_path / "a.pt2")
    assert "tensorrt 8.6.0.12" in shown(tmp_path / "a.pt2")


# ---------------------------------------------------------------- tampered plans


def on_cpu(entry: dict[str, Any]) -> None:
    entry["engines"][0]["requires"]["device"] = ["cpu"]


def tampered(offset: int, data: bytes) -> torch.Tensor:
    plan = PLAN[:offset] + data + PLAN[offset + len(data) :]
    return torch.frombuffer(bytearray(plan), dtype=torch.uint8)


def plan_index(call: Call) -> int:
    return int(call.engine("tensorrt")["data"]["blob"])


@pytest.mark.parametrize("offset", [0, 4, 16, 24, 0x7C, 511])
def test_a_changed_byte_never_reaches_the_library(fake: FakeBackend, offset: int) -> None:
    call = call_of(adopted()).edited(on_cpu)
    spoilt = call.with_blob(plan_index(call), tampered(offset, bytes([PLAN[offset] ^ 0x40])))
    with pytest.raises(PackageError, match="engine tensorrt of block_0 is damaged"):
        spoilt(X, X)
    assert fake.opened == []


OTHER_VERSION = (24, b"\x0b\x04\x01\x09")
OTHER_MARK = (0, b"vtrt")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (OTHER_VERSION, "declared as tensorrt 8.6.0.12, and is of tensorrt 11.4.1.9"),
        (OTHER_MARK, "declared as tensorrt 8.6.0.12, and is of tensorrt_rtx 8.6.0.12"),
    ],
)
def test_a_plan_whose_header_denies_its_manifest_is_not_opened(
    change: tuple[int, bytes], words: str
) -> None:
    """Though size and digest are right: whoever can write one blob can write the other."""
    call = call_of(adopted())
    forged = call.resealed(plan_index(call), tampered(*change))
    manifest = decode(forged.text)
    data = forged.blobs[plan_index(call)]
    with pytest.raises(EngineError) as caught:
        open_session(
            manifest.engines[0],
            manifest,
            data,
            library="tensorrt",
            built="8.6.0.12",
            device=torch.device("cuda"),
        )
    assert words in caught.value.happened


@pytest.mark.parametrize(
    ("data", "version", "denied"),
    [
        (PLAN, "8.6.0.12", False),
        (PLAN, "8.6.0", False),
        (PLAN, "8.6.1", True),
        (PLAN, "11.4.1.9", True),
        (b"", "8.6.0", False),  # the library says that it is no plan
        (b"an engine of the future", "99.0", False),
        (PLAN[:100], "8.6.0", False),
    ],
)
def test_only_a_header_that_is_read_can_deny(data: bytes, version: str, denied: bool) -> None:
    found = contradiction(data, "tensorrt", version)
    assert bool(found) == denied
    if denied:
        assert version in found
        assert read_plan_header(data).version in found


def lies(edit: Callable[[dict[str, Any]], None]) -> Call:
    """A plan whose manifest was changed, for CPU tensors, so that the fake could run it."""

    def both(entry: dict[str, Any]) -> None:
        on_cpu(entry)
        edit(entry["engines"][0]["requires"])

    return call_of(adopted(version_compatible=True)).edited(both)


def test_a_manifest_that_hides_the_code_gains_nothing(fake: FakeBackend) -> None:
    """The library is told that nobody trusts it, and refuses what it finds."""
    call = lies(lambda requires: requires.update(host_code=False))
    fake.answer = lambda a, b: [Sum()(a, b)]
    call(X, X)
    assert fake.code_allowed == [False]
    with policy(trust="host-code"):
        lies(lambda requires: requires.update(host_code=True))(X, X)
    assert fake.code_allowed == [False, True]


@pytest.mark.parametrize("value", ["yes", 1, None])
@pytest.mark.parametrize("key", ["version_compatible", "host_code"])
def test_a_manifest_says_true_or_false(key: str, value: Any) -> None:
    with pytest.raises(PackageError, match=key):
        lies(lambda requires: requires.update({key: value}))(X, X)


@pytest.mark.parametrize("key", ["tensorrt", "cuda", "compute_capability_min"])
@pytest.mark.parametrize("value", [3, None, ["8.6"], "8\n6"])
def test_versions_are_text(key: str, value: Any) -> None:
    with pytest.raises(PackageError, match=key):
        lies(lambda requires: requires.update({key: value}))(X, X)


def test_a_plan_cut_off_is_not_adopted() -> None:
    (size,) = struct.unpack_from("<Q", PLAN, 16)
    assert size == len(PLAN)
    with pytest.raises(PackageError, match="its header states"):
        adopted(PLAN[:-1])


def test_the_source_still_runs_beside_a_plan_that_nobody_trusts() -> None:
    module = adopted(version_compatible=True).module()
    with pytest.warns(FallbackWarning):
        torch.testing.assert_close(module(X + 1, X), Sum()(X + 1, X))
