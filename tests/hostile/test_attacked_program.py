"""A saved program whose blobs or manifest were changed, run by plain torch."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from tiny import Call, call_of, compiled, edit_program, model, python, shared
from torch.export import ExportedProgram

from portrt.errors import NoUsableEngineError, PackageError
from portrt.runtime import policy
from portrt.runtime.select import FallbackWarning

ENGINES = ("tensorrt_rtx", "onnxruntime")
ONNX, SOURCE, WEIGHTS = "engine_1_onnxruntime", "block_0_source", "weights"
X = torch.linspace(-1, 1, 24).view(3, 8)


@pytest.fixture
def program() -> ExportedProgram:
    """Of its own for each test: two engines, read back as torch.export.load gives it."""
    file = io.BytesIO()
    torch.export.save(shared(*ENGINES), file)
    file.seek(0)
    return torch.export.load(file)


@pytest.fixture
def native(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What reached ONNX Runtime or torch's loader of sources, in order."""
    seen: list[str] = []
    real_session, real_load = onnxruntime.InferenceSession, torch.export.load

    def session(data: bytes, *args: Any, **kwargs: Any) -> Any:
        seen.append("engine")
        return real_session(data, *args, **kwargs)

    def load(*args: Any, **kwargs: Any) -> Any:
        seen.append("source")
        return real_load(*args, **kwargs)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    monkeypatch.setattr(torch.export, "load", load)
    return seen


def blob(program: ExportedProgram, label: str) -> torch.Tensor:
    """The constant of a program that is a blob, to be changed in place."""
    (name,) = [name for name in program.constants if name.endswith(label)]
    return program.constants[name]


def flip(tensor: torch.Tensor, place: int) -> None:
    tensor[place] ^= 1


def refused(program: ExportedProgram, match: str) -> PackageError:
    with pytest.raises(PackageError, match=match) as caught:
        program.module()(X)
    assert "block_0" in caught.value.happened
    assert caught.value.expected
    assert caught.value.remedy
    return caught.value


def test_the_program_itself_runs(program: ExportedProgram, native: list[str]) -> None:
    torch.testing.assert_close(program.module()(X), model()(X))
    assert native == ["engine"]


@pytest.mark.parametrize("place", [0, 1, 100, 500, -1])
def test_a_flipped_bit_in_an_engine_never_reaches_the_library(
    program: ExportedProgram, native: list[str], place: int
) -> None:
    flip(blob(program, ONNX), place)
    refused(program, "engine onnxruntime of block_0 is damaged: its SHA-256")
    assert native == []


@pytest.mark.parametrize("place", [0, 30, 3000, -1])
def test_a_flipped_bit_in_the_source_never_reaches_torch(
    program: ExportedProgram, native: list[str], place: int
) -> None:
    flip(blob(program, SOURCE), place)
    with policy(engines=()):
        refused(program, "the source of block_0 is damaged: its SHA-256")
    assert native == []


def test_a_flipped_bit_in_an_engine_that_does_not_run_is_no_harm(program: ExportedProgram) -> None:
    flip(blob(program, "engine_0_tensorrt_rtx"), 5)
    torch.testing.assert_close(program.module()(X), model()(X))


def test_a_flipped_bit_in_the_weights_is_found_by_verify() -> None:
    from portrt.runtime.op import load_block

    call = call_of(shared(*ENGINES))
    flip(call.blobs[0], -1)
    block = load_block(call.blobs, call.text)
    with pytest.raises(PackageError, match="the weights of block_0 is damaged"):
        block.verify()


def _swap(one: str, two: str, *keys: str) -> Callable[[dict[str, Any]], None]:
    def edit(entry: dict[str, Any]) -> None:
        holders = {"weights": entry["weights"], "source": entry["source"]}
        holders.update({engine["backend"]: engine["data"] for engine in entry["engines"]})
        first, second = holders[one], holders[two]
        for key in keys:
            first[key], second[key] = second[key], first[key]

    return edit


@pytest.mark.parametrize("pair", [("onnxruntime", "tensorrt_rtx"), ("onnxruntime", "source")])
def test_swapped_indexes_are_refused_by_size(
    program: ExportedProgram, native: list[str], pair: tuple[str, str]
) -> None:
    edit_program(program, _swap(*pair, "blob"))
    refused(program, "of block 'block_0' has .* bytes")
    assert native == []


@pytest.mark.parametrize("pair", [("onnxruntime", "tensorrt_rtx"), ("onnxruntime", "source")])
def test_swapped_blobs_are_refused_by_digest(
    program: ExportedProgram, native: list[str], pair: tuple[str, str]
) -> None:
    edit_program(program, _swap(*pair, "blob", "size"))
    refused(program, "engine onnxruntime of block_0 is damaged")
    assert native == []


@pytest.mark.parametrize("pair", [("onnxruntime", "weights"), ("source", "weights")])
def test_a_blob_in_the_place_of_the_weights_is_refused(
    program: ExportedProgram, native: list[str], pair: tuple[str, str]
) -> None:
    edit_program(program, _swap(*pair, "blob", "size", "sha256"))
    with pytest.raises(PackageError, match="the weights image "):
        program.module()(X)
    assert native == []


@pytest.mark.parametrize("change", [-1, 1, 10**6])
@pytest.mark.parametrize("label", ["weights", "source"])
def test_a_wrong_size_is_refused(
    program: ExportedProgram, native: list[str], label: str, change: int
) -> None:
    def edit(entry: dict[str, Any]) -> None:
        entry[label]["size"] += change

    edit_program(program, edit)
    refused(program, f"the {label} of block 'block_0' has .* bytes")
    assert native == []


@pytest.mark.parametrize("index", range(4))
def test_a_missing_blob_is_refused(native: list[str], index: int) -> None:
    call = call_of(shared(*ENGINES))
    blobs = [tensor for place, tensor in enumerate(call.blobs) if place != index]
    with pytest.raises(PackageError, match="the call of block 'block_0' has 3 blobs"):
        torch.ops.portrt.execute_engine([X], blobs, call.text)
    assert native == []


def test_a_call_without_blobs_is_refused() -> None:
    with pytest.raises(PackageError, match="has 0 blobs"):
        torch.ops.portrt.execute_engine([X], [], call_of(shared(*ENGINES)).text)


@pytest.mark.parametrize(
    "other",
    [
        lambda blob: blob.float(),
        lambda blob: blob.view(1, -1),
        lambda blob: blob[:-1].clone(),
        lambda blob: torch.cat([blob, blob[:1]]),
        lambda blob: blob.view(torch.int8),
    ],
    ids=["float32", "two dimensions", "cut short", "longer", "int8"],
)
def test_a_blob_of_another_kind_is_refused(
    native: list[str], other: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    call = call_of(shared(*ENGINES))
    for index in range(4):
        with pytest.raises(PackageError, match=r"of block 'block_0' has .* bytes"):
            call.with_blob(index, other(call.blobs[index]))(X)
    assert native == []


@pytest.mark.parametrize(
    "edit",
    [
        lambda entry: entry.update(format=99),
        lambda entry: entry.pop("engines"),
        lambda entry: entry["inputs"][0].update(dtype="float24"),
        lambda entry: entry["outputs"][0].update(shape=["__import__('os').abort()", 4]),
    ],
    ids=["format", "engines", "dtype", "shape"],
)
def test_a_malformed_manifest_is_refused_by_load_or_call(
    native: list[str], edit: Callable[[dict[str, Any]], Any]
) -> None:
    call = call_of(shared(*ENGINES)).edited(edit)
    with pytest.raises(PackageError):
        call(X)
    assert native == []


LIES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "input is float64": lambda entry: entry["inputs"][0].update(dtype="float64"),
    "output is float16": lambda entry: entry["outputs"][0].update(dtype="float16"),
    "output is a complex64": lambda entry: entry["outputs"][0].update(dtype="complex64"),
    "another name": lambda entry: entry["inputs"][0].update(name="y"),
    "two outputs": lambda entry: entry["outputs"].append(entry["outputs"][0]),
    "weights of another name": lambda entry: entry["engines"][1].update(weights=["second.bias"]),
}


@pytest.mark.parametrize("name", LIES)
def test_an_engine_that_is_not_as_the_manifest_says_is_not_run(name: str) -> None:
    """Its digest is right: whoever made the file lied. The engine is refused with the reason."""
    lie = call_of(shared(*ENGINES)).edited(LIES[name])
    x = X.double() if "float64" in name else X
    with policy(fallback="error"), pytest.raises(NoUsableEngineError, match="could not be opened"):
        lie(x)


SIZES: dict[str, Any] = {
    "output too small": [["dim", 0, 0], 1],
    "output too large": [["dim", 0, 0], 1000],
    "output of another rank": [["mul", 4, ["dim", 0, 0]]],
    "output of no bytes": [0, 4],
}


@pytest.mark.parametrize("engines", [("onnxruntime",), ()], ids=["engine", "source"])
def test_an_output_of_another_size_than_the_manifest_says_is_an_error(
    engines: tuple[str, ...], tmp_path: Path
) -> None:
    """Not written beyond the memory that was made for it, so run in a process of its own."""
    code = """
        import sys, torch
        from portrt.runtime import policy
        from portrt.errors import EngineError, InputError
        x, calls = torch.load(sys.argv[1])
        with policy(engines=sys.argv[2:]):
            for blobs, text in calls * 25:
                try:
                    torch.ops.portrt.execute_engine([x], blobs, text)
                except (EngineError, InputError):
                    continue
                raise SystemExit("it was run: " + text)
        print("refused")
    """
    call = call_of(shared(*ENGINES))
    lies = [
        call.edited(lambda entry, shape=shape: entry["outputs"][0].update(shape=shape))
        for shape in SIZES.values()
    ]
    done = python(code, _stored(tmp_path, X, lies), *engines)
    assert (done.returncode, done.stdout) == (0, "refused\n"), done.stderr


def test_an_input_of_another_size_than_the_engine_takes_is_an_error(tmp_path: Path) -> None:
    code = """
        import sys, torch
        from portrt.errors import EngineError
        x, [(blobs, text)] = torch.load(sys.argv[1])
        try:
            torch.ops.portrt.execute_engine([x], blobs, text)
        except EngineError as err:
            print(err.happened[:32])
    """
    call = call_of(shared(*ENGINES)).edited(lambda e: e["inputs"][0]["shape"].__setitem__(1, 4))
    done = python(code, _stored(tmp_path, torch.ones(3, 4), [call]))
    assert (done.returncode, done.stdout) == (0, "ONNX Runtime failed in block_0: \n"), done


def test_garbage_with_the_right_digest_falls_to_the_next_engine(tmp_path: Path) -> None:
    """Random bytes sealed as an engine do reach the library: it must not take the process down."""
    code = """
        import sys, torch, warnings
        from portrt.runtime.select import FallbackWarning
        x, calls = torch.load(sys.argv[1])
        for blobs, text in calls:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                torch.ops.portrt.execute_engine([x], blobs, text)
            print([w.category.__name__ for w in caught if w.category is FallbackWarning])
    """
    generator = torch.Generator().manual_seed(0)
    call = call_of(shared(*ENGINES))
    size = call.blobs[3].numel()
    garbage = torch.randint(0, 256, (size,), generator=generator, dtype=torch.uint8)
    cases = [garbage, torch.zeros_like(garbage), garbage[:0].clone()]
    calls = [call.resealed(3, data) for data in cases]
    done = python(code, _stored(tmp_path, X, calls))
    assert (done.returncode, done.stdout) == (0, "['FallbackWarning']\n" * 3), done.stderr


def test_a_spoilt_graph_with_the_right_digest_does_not_end_the_process(tmp_path: Path) -> None:
    """What it still computes is not known: that the process lives, or says why not, is."""
    code = """
        import sys, torch
        from portrt.errors import PortrtError
        x, calls = torch.load(sys.argv[1])
        for blobs, text in calls:
            try:
                torch.ops.portrt.execute_engine([x], blobs, text)
            except PortrtError:
                pass
            print("done")
    """
    call = call_of(shared(*ENGINES))
    calls = []
    for place in range(0, call.blobs[3].numel(), 5):
        spoilt = call.blobs[3].clone()
        spoilt[place] ^= 0x55
        calls.append(call.resealed(3, spoilt))
    done = python(code, _stored(tmp_path, X, calls))
    assert (done.returncode, done.stdout) == (0, "done\n" * len(calls)), done.stderr


def test_half_an_engine_with_the_right_digest_falls_to_the_next_engine() -> None:
    call = call_of(shared(*ENGINES))
    cut = call.resealed(3, call.blobs[3][: call.blobs[3].numel() // 2].clone())
    with pytest.warns(FallbackWarning, match="onnxruntime: no: it could not be opened"):
        (result,) = cut(X)
    torch.testing.assert_close(result, model()(X))


def test_a_source_that_is_no_program_is_a_package_error() -> None:
    call = call_of(shared(*ENGINES))
    spoilt = call.resealed(1, torch.zeros(1000, dtype=torch.uint8))
    with policy(engines=()), pytest.raises(PackageError, match="the source of block_0 cannot be"):
        spoilt(X)


def test_weights_whose_header_lost_a_name_are_a_package_error(native: list[str]) -> None:
    call = call_of(shared(*ENGINES))
    image = call.blobs[0]
    place = bytes(image.numpy()).index(b"first.weight")
    image[place] = ord("F")
    with pytest.raises(PackageError, match=r"no tensor 'first.weight'"):
        call(X)
    assert native == []


@pytest.mark.parametrize("at", [0, 3, 7, 20, 60])
def test_weights_with_a_spoilt_header_are_a_package_error(native: list[str], at: int) -> None:
    call = call_of(shared(*ENGINES))
    call.blobs[0][at] ^= 0x84
    with pytest.raises(PackageError):
        call(X)
    assert native == []


def test_an_engine_for_an_unknown_backend_is_no_error(program: ExportedProgram) -> None:
    edit_program(program, lambda entry: entry["engines"][0].update(backend="of_tomorrow"))
    torch.testing.assert_close(program.module()(X), model()(X))


def test_every_flipped_byte_of_an_engine_is_noticed() -> None:
    call = call_of(shared(*ENGINES))
    engine = call.blobs[3]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for place in range(0, engine.numel(), 7):
            engine[place] ^= 0x10
            with pytest.raises(PackageError, match="is damaged"):
                call(X)
            engine[place] ^= 0x10
    call(X)


def _stored(folder: Path, x: torch.Tensor, calls: list[Call]) -> str:
    """A file with an input and calls, for a new process."""
    path = folder / "calls.pt"
    torch.save((x, [(list(call.blobs), call.text) for call in calls]), path)
    return str(path)


def test_a_program_compiled_for_the_missing_engine_alone_says_so() -> None:
    program = compiled("tensorrt_rtx", fallback="error")
    with pytest.raises(NoUsableEngineError, match="tensorrt_rtx: no: it takes cuda tensors"):
        program.module()(X)
