"""A compiled module is one like any other: it shows, copies, pickles and converts itself."""

from __future__ import annotations

import copy
import io
import pickle
import pickletools
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch

import portrt
from portrt.errors import LoadError, SaveError, SettingsError


class Counter(torch.nn.Module):
    """Adds to a buffer in every call."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)
        self.total = torch.nn.Buffer(torch.zeros(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.total.add_(self.layer(x).sum(0))
        return self.total + 0


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(64, 8), torch.nn.GELU()).eval()


@pytest.fixture(scope="module")
def program(model: torch.nn.Module) -> Any:
    x = portrt.Input(min_shape=(1, 64), opt_shape=(4, 64), max_shape=(32, 64))
    return portrt.compile(
        model, inputs=[x], engines="onnxruntime", output_format="exported_program"
    )


@pytest.fixture(scope="module")
def module(program: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("module") / "model.pt2"
    portrt.save(program, path)
    return portrt.load(path, output_format="module")


X = torch.linspace(-1, 1, 128).reshape(2, 64)


def test_text_names_inputs_blocks_and_what_runs(module: Any) -> None:
    text = repr(module)
    assert "input: float32 (1..32, 64)" in text
    assert "block_0 (2 operators) runs as onnxruntime" in text
    assert "    onnxruntime: yes" in str(torch.nn.Sequential(module))


def test_html_has_the_same(module: Any) -> None:
    cells: list[str] = []
    parser = HTMLParser()
    parser.handle_data = cells.append  # type: ignore[method-assign]
    parser.feed(module._repr_html_())
    for wanted in ("input", "float32 (1..32, 64)", "block_0 (2 operators)", "onnxruntime", "yes"):
        assert wanted in cells


def test_text_of_another_policy_is_that_policys(module: Any) -> None:
    with portrt.runtime.policy(engines="openvino"):
        assert "runs as eager" in repr(module)


@pytest.mark.parametrize("convert", ["half", "double", "bfloat16"])
def test_other_dtypes_are_refused(module: Any, convert: str) -> None:
    with pytest.raises(SettingsError, match="float32 was to become"):
        getattr(module, convert)()
    with pytest.raises(SettingsError, match="float32 was to become"):
        module.to("cpu", torch.float16)


def test_a_parent_is_converted_and_the_module_stays(
    module: Any, model: torch.nn.Module, caplog: pytest.LogCaptureFixture
) -> None:
    parent = torch.nn.Sequential(torch.nn.Linear(2, 2), module, torch.nn.Linear(2, 2)).half()
    assert {item.dtype for item in parent.parameters()} == {torch.float16}
    assert "a compiled program of torch.float32 stays one" in caplog.text
    torch.testing.assert_close(module(X), model(X))


def test_its_own_dtype_and_device_are_taken(module: Any, model: torch.nn.Module) -> None:
    for same in (module.float(), module.to("cpu"), module.to(torch.float32), module.cpu()):
        torch.testing.assert_close(same(X), model(X))


def test_a_device_without_engine_is_named(program: Any, caplog: pytest.LogCaptureFixture) -> None:
    portrt.load(_bytes(program), output_format="module").to("meta")
    assert "moved to meta, where block_0 (2 operators) runs as eager" in caplog.text


def test_deep_copies_have_states_of_their_own() -> None:
    compiled = portrt.compile(
        Counter().eval(), inputs=[torch.ones(1, 3)], engines="onnxruntime", min_block_size=1
    )
    copied = copy.deepcopy(compiled)
    first = compiled(torch.ones(1, 3)).clone()
    torch.testing.assert_close(copied(torch.ones(1, 3)), first)
    torch.testing.assert_close(compiled(torch.ones(1, 3)), 2 * first)
    assert repr(copied) == repr(compiled)
    assert not copied.eval().training


def test_pickles_and_files_have_the_states_of_their_module(tmp_path: Path) -> None:
    x = torch.ones(1, 3)
    compiled: Any = portrt.compile(
        Counter().eval(), inputs=[x], engines="onnxruntime", min_block_size=1
    )
    copied = copy.deepcopy(compiled)
    step = compiled(x).clone()
    for _ in range(3):
        last = copied(x).clone()
    portrt.save(copied, tmp_path / "model.pt2")
    loaded: Any = portrt.load(tmp_path / "model.pt2", output_format="module")
    for again in (pickle.loads(pickle.dumps(copied)), loaded):
        torch.testing.assert_close(again(x), last + step)
    torch.testing.assert_close(pickle.loads(pickle.dumps(compiled))(x), 2 * step)
    compiled.total = torch.zeros(2)
    torch.testing.assert_close(pickle.loads(pickle.dumps(compiled))(x), step)
    torch.testing.assert_close(compiled(x), step)


def test_pickles_have_no_code(module: Any, model: torch.nn.Module) -> None:
    data = pickle.dumps(module)
    texts = [value for _, value, _ in pickletools.genops(data) if isinstance(value, str)]
    assert texts == ["portrt.runtime.load", "load_bytes"]
    torch.testing.assert_close(pickle.loads(data)(X), model(X))
    parent = pickle.loads(pickle.dumps(torch.nn.Sequential(module)))
    torch.testing.assert_close(parent(X), model(X))


def test_torch_save_and_load(module: Any, model: torch.nn.Module) -> None:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    torch.testing.assert_close(torch.load(file, weights_only=False)(X), model(X))


def _bytes(program: Any) -> io.BytesIO:
    file = io.BytesIO()
    portrt.save(program, file)
    file.seek(0)
    return file


@pytest.mark.parametrize("output_format", ["module", "exported_program"])
def test_file_objects(program: Any, model: torch.nn.Module, output_format: Any) -> None:
    file = _bytes(program)
    loaded: Any = portrt.load(file, output_format=output_format)
    file.close()
    call = loaded if output_format == "module" else loaded.module()
    torch.testing.assert_close(call(X), model(X))
    assert "onnxruntime: yes" in repr(portrt.load(_bytes(program), output_format="module"))


def test_file_objects_have_the_bytes_of_a_file(program: Any, tmp_path: Path) -> None:
    portrt.save(program, tmp_path / "model.pt2")
    with (tmp_path / "other.pt2").open("wb") as file:
        portrt.save(program, file)
    assert (tmp_path / "other.pt2").stat().st_size == (tmp_path / "model.pt2").stat().st_size
    with (tmp_path / "other.pt2").open("rb") as file:
        torch.testing.assert_close(
            portrt.load(file).module()(X), portrt.load(tmp_path / "model.pt2").module()(X)
        )


@pytest.mark.parametrize("file", [io.StringIO(), 3, None])
def test_what_is_no_file_is_refused(program: Any, file: Any) -> None:
    with pytest.raises(SettingsError, match="the file is a"):
        portrt.save(program, file)
    with pytest.raises(SettingsError, match="the file is a"):
        portrt.load(file)


class Short(io.RawIOBase):
    """Writes a thousand bytes at a time, and no more than `limit`."""

    def __init__(self, limit: int = 1 << 30) -> None:
        self.data, self.limit = bytearray(), limit

    def write(self, data: Any) -> int:
        if len(self.data) >= self.limit:
            raise OSError("the disk is full")
        self.data += bytes(data[:1000])
        return min(len(data), 1000)


def test_a_file_object_that_writes_a_part_at_a_time(program: Any, model: torch.nn.Module) -> None:
    file = Short()
    portrt.save(program, file)
    torch.testing.assert_close(portrt.load(io.BytesIO(file.data)).module()(X), model(X))


def test_file_objects_that_fail(program: Any, tmp_path: Path) -> None:
    closed = io.BytesIO()
    closed.close()
    for target in (Short(3000), closed):
        with pytest.raises(SaveError, match="could not be written"):
            portrt.save(program, target)
    with pytest.raises(LoadError, match="cannot be read"):
        portrt.load(closed)
    with (tmp_path / "file").open("wb") as file, pytest.raises(LoadError, match="cannot be read"):
        portrt.load(file)
    at_end = _bytes(program)
    at_end.seek(0, io.SEEK_END)
    for empty in (at_end, io.BytesIO()):
        with pytest.raises(LoadError, match=r"no bytes from where it stands[^$]*seek\(0\)"):
            portrt.load(empty)
    with pytest.raises(LoadError, match="the BytesIO is not a zip file"):
        portrt.load(io.BytesIO(b"text"))


def test_nothing_is_written_where_saving_fails(model: torch.nn.Module) -> None:
    file = io.BytesIO()
    with pytest.raises(SettingsError):
        portrt.save(model, file)
    assert file.getvalue() == b""


@pytest.mark.parametrize("output_format", ["module", "exported_program"])
def test_compiled_programs_are_recognised(
    program: Any, model: torch.nn.Module, output_format: Any, caplog: pytest.LogCaptureFixture
) -> None:
    given = program if output_format == "module" else program.module()
    given = portrt.load(_bytes(program), output_format="module") if given is not program else given
    again: Any = portrt.compile(given, inputs=[X], output_format=output_format)
    assert "is a compiled program and is returned as it is" in caplog.text
    call = again if output_format == "module" else again.module()
    torch.testing.assert_close(call(X), model(X))
