"""`save` and `load`: every keyword, format and kind of target."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import Mlp
from torch import nn
from torch.testing import assert_close

import portrt
import portrt.torch_tensorrt as torch_tensorrt
from portrt.errors import LoadError, SaveError, SettingsError
from portrt.files import check

X = torch.randn(2, 8)
TEXT = {"notes.txt": "größer", "empty": ""}


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return Mlp().eval()


@pytest.fixture(scope="module")
def compiled(model: nn.Module) -> Any:
    return torch_tensorrt.compile(model, inputs=X, engines="onnxruntime", min_block_size=1)


def module(loaded: Any) -> Any:
    return loaded.module() if isinstance(loaded, torch.export.ExportedProgram) else loaded


@pytest.mark.parametrize("output_format", ["exported_program", "torchscript"])
@pytest.mark.parametrize("extra", [None, TEXT])
def test_each_target_in_each_format(
    compiled: Any, model: nn.Module, output_format: str, extra: Any, tmp_path: Path
) -> None:
    given: dict[str, Any] = {"output_format": output_format, "extra_files": extra}
    given |= {
        "arg_inputs": [X],
        "retrace": True,
        "pickle_protocol": 4,
        "use_legacy_exporter": False,
    }
    buffer = io.BytesIO()
    torch_tensorrt.save(compiled, tmp_path / "a.ep", **given)
    torch_tensorrt.save(compiled, str(tmp_path / "b.ep"), **given)
    torch_tensorrt.save(compiled, buffer, **given)
    buffer.seek(0)
    for source in (tmp_path / "a.ep", str(tmp_path / "b.ep"), buffer):
        found = {"notes.txt": "", "empty": "?", "other": "kept"}
        loaded = torch_tensorrt.load(source, extra_files=found)
        assert_close(module(loaded)(X), model(X))
        if extra is not None:
            assert {name: _text(found[name]) for name in TEXT} == TEXT
        if output_format == "exported_program":
            assert found["other"] == "kept"
    if output_format == "exported_program":  # torch reads the same
        found = dict.fromkeys(extra or (), "?")
        assert_close(torch.export.load(tmp_path / "a.ep", extra_files=found).module()(X), model(X))
        assert found == (extra or {})


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else value


def test_a_model_and_a_script_are_saved(model: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "model.ep"
    torch_tensorrt.save(model, path, inputs=X, dynamic_shapes=({0: torch.export.Dim("n", max=9)},))
    x = torch.randn(5, 8)
    assert_close(torch_tensorrt.load(path).module()(x), model(x))
    graph = torch.export.export(model, (X,)).module()
    torch_tensorrt.save(graph, path, arg_inputs=[X])
    assert_close(torch_tensorrt.load(path).module()(X), model(X))
    script = torch.jit.trace(model, X)
    torch_tensorrt.save(script, path, output_format="torchscript", extra_files=TEXT)
    found = {"notes.txt": ""}
    assert_close(torch_tensorrt.load(path, found, format="torchscript")(X), model(X))
    assert _text(found["notes.txt"]) == TEXT["notes.txt"]


def test_ranges_are_those_of_the_compilation(compiled: Any, tmp_path: Path) -> None:
    with pytest.warns(torch_tensorrt.NoEffectWarning, match="compiled for one size"):
        torch_tensorrt.save(compiled, tmp_path / "a.ep", dynamic_shapes={"x": {0: "n"}})


def test_what_cannot_be_had_is_an_error(compiled: Any, model: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "model.pte"
    for call in (torch_tensorrt.save, None):
        with pytest.raises(SettingsError, match="ExecuTorch"):
            if call is None:
                torch_tensorrt.load(path, format="executorch")
            else:
                call(compiled, path, output_format="executorch")
    with pytest.raises(SettingsError, match="output_format is 'onnx'"):
        torch_tensorrt.save(compiled, path, output_format="onnx")
    with pytest.raises(SettingsError, match="not compiled was given to save"):
        torch_tensorrt.save(model, path)
    with pytest.raises(SettingsError, match="no argument 'retrase'"):
        torch_tensorrt.save(compiled, path, retrase=True)
    for target in ("", None, 3):
        with pytest.raises(SettingsError, match="file_path is"):
            torch_tensorrt.save(compiled, target)
        with pytest.raises(SettingsError, match="file_path is"):
            torch_tensorrt.load(target)
    for extra in (None, TEXT):
        with pytest.raises(SaveError, match="could not be written"):
            torch_tensorrt.save(compiled, tmp_path / "none" / "a.ep", extra_files=extra)
    with pytest.raises(LoadError, match="there is no file"):
        torch_tensorrt.load(path, extra_files={"a": ""})
    assert not path.exists()
    path.write_bytes(b"nothing")
    with pytest.raises(LoadError):
        torch_tensorrt.load(path)
    with pytest.raises(LoadError):
        torch_tensorrt.load(io.BytesIO(b"nothing"))


def test_a_policy_is_passed_on(compiled: Any, tmp_path: Path) -> None:
    torch_tensorrt.save(compiled, tmp_path / "a.ep")
    program = torch_tensorrt.load(tmp_path / "a.ep", engines=(), fallback="error")
    with pytest.raises(portrt.errors.NoUsableEngineError):
        program.module()(X)


def test_a_file_for_windows(model: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "windows.ep"
    torch_tensorrt.cross_compile_for_windows(model, str(path), inputs=[X], min_block_size=1)
    other = tmp_path / "other.ep"
    made = torch_tensorrt.dynamo.cross_compile_for_windows(
        torch.export.export(model, (X,)), [X], min_block_size=1
    )
    torch_tensorrt.dynamo.save_cross_compiled_exported_program(made, str(other))
    for file in (path, other):
        found = check(file, "os=windows,arch=x86_64,sm=89,tensorrt_rtx=1.7")
        assert found.outcome == "engine"
        loaded = torch_tensorrt.load_cross_compiled_exported_program(str(file))
        with pytest.warns(UserWarning, match="no stored engine"):  # here the source runs
            assert_close(loaded.module()(X), model(X))


def test_a_file_for_windows_needs_tensorrt_rtx(model: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "windows.ep"
    with pytest.raises(SettingsError, match="'tensorrt_rtx' among them"):
        torch_tensorrt.cross_compile_for_windows(model, str(path), [X], engines="onnxruntime")
    assert not path.exists()


@pytest.mark.slow
def test_a_package_of_aot_inductor(compiled: Any, model: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    torch_tensorrt.save(compiled, path, output_format="aot_inductor", arg_inputs=[X])
    assert_close(torch_tensorrt.load(path)(X), model(X))
    assert_close(torch_tensorrt.load(path, format="aot_inductor")(X), model(X))
