"""runtime="cpp" in Python: chosen by policies and programs, with Python's errors and ways out."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import gc
import json
import logging
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import run_script
from tiny import model

import portrt
from portrt.cpp.build import Built
from portrt.engines import cpp_library
from portrt.errors import (
    BackendUnavailableError,
    InputError,
    PackageError,
    PortrtError,
    SettingsError,
)
from portrt.format.manifest import decode
from portrt.runtime import Policy, cpp_engines, policy, report
from portrt.runtime.new_weights.update import update_weights
from portrt.runtime.op import load_block
from portrt.runtime.policy import effective

X = torch.linspace(-1, 1, 24).view(3, 8)
ROWS = portrt.Input(min_shape=(1, 8), opt_shape=(3, 8), max_shape=(16, 8))
OP = torch.ops.portrt.execute_engine


class Calls:
    """A program of one call, and that call."""

    def __init__(self, module: torch.nn.Module, *inputs: Any, **options: Any) -> None:
        self.model = module
        self.program = portrt.compile(
            module,
            inputs=list(inputs),
            output_format="exported_program",
            **{"engines": "onnxruntime", "min_block_size": 1, **options},
        )
        targets = {spec.arg.name: spec.target for spec in self.program.graph_signature.input_specs}
        (node,) = (n for n in self.program.graph.nodes if n.target is OP.default)
        self.blobs = [self.program.constants[targets[arg.name]] for arg in node.args[1]]
        self.text: str = node.args[2]

    def __call__(self, *inputs: torch.Tensor) -> list[torch.Tensor]:
        found: list[torch.Tensor] = OP(list(inputs), self.blobs, self.text)
        return found

    @property
    def runtime(self) -> str:
        return load_block(self.blobs, self.text).selection(torch.device("cpu")).runtime


class Gather(torch.nn.Module):
    def forward(self, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        return (x + 1)[index] * 2


@pytest.fixture(scope="module", autouse=True)
def library(cpp_runtime: Built) -> Iterator[None]:
    with policy(runtime="cpp"):
        yield


@pytest.fixture(scope="module")
def mlp() -> Calls:
    return Calls(model(), ROWS)


def error_of(call: Callable[[], Any]) -> tuple[type, str]:
    with pytest.raises(PortrtError) as caught:
        call()
    return type(caught.value), str(caught.value)


def test_numbers_and_verdicts_are_those_of_python(mlp: Calls) -> None:
    module = mlp.program.module()
    for rows in (1, 3, 16, 3):
        x = torch.randn(rows, 8)
        with policy(runtime="cpp"):
            in_cpp = [*mlp(x), module(x), OP.default([x], mlp.blobs, mlp.text)[0]]
            assert mlp.runtime == "cpp"
        with policy(runtime="python"):
            (in_python,) = mlp(x)
            assert mlp.runtime == "python"
        torch.testing.assert_close(in_cpp, [in_python] * 3, rtol=0, atol=0)
        torch.testing.assert_close(in_python, mlp.model(x).detach())
    found = {}
    for runtime in ("python", "cpp"):
        with policy(runtime=runtime):
            (found[runtime],) = report(mlp.program)
    assert found["cpp"].verdicts == found["python"].verdicts
    assert [(item.runs_as, item.runtime) for item in found.values()] == [
        ("onnxruntime", "python"),
        ("onnxruntime", "cpp"),
    ]
    assert str(found["cpp"]).startswith("block_0 (3 operators) runs as onnxruntime in C++\n")


@pytest.mark.parametrize(
    "inputs",
    [
        [torch.ones(17, 8)],
        [torch.ones(0, 8)],
        [torch.ones(3, 7)],
        [torch.tensor(1.0)],
        [torch.ones(3, 8).double()],
        [torch.ones(3, 8, dtype=torch.complex64)],
        [X, X],
    ],
    ids=str,
)
def test_wrong_inputs_are_the_errors_of_python(mlp: Calls, inputs: list[torch.Tensor]) -> None:
    found = []
    for runtime in ("python", "cpp"):
        with policy(runtime=runtime):
            mlp(X)
            found.append(error_of(lambda: mlp(*inputs)))
    assert found[0] == found[1]
    assert found[0][0] is InputError


def test_what_an_engine_fails_with_is_the_error_of_python() -> None:
    calls = Calls(Gather().eval(), torch.randn(4), torch.tensor([0, 3]), numerics="fast")
    module = portrt.compile(
        calls.model,
        inputs=[torch.randn(4), torch.tensor([0, 3])],
        engines="onnxruntime",
        min_block_size=1,
        numerics="fast",
    )
    x = torch.randn(4)
    good, bad = (x, torch.tensor([2, 1])), (x, torch.tensor([2, 9]))
    found = []
    for runtime in ("python", "cpp"):
        with policy(runtime=runtime):
            torch.testing.assert_close(calls(*good)[0], calls.model(*good))
            torch.testing.assert_close(module(*good), calls.model(*good))
            found += [error_of(lambda: calls(*bad)), error_of(lambda: module(*bad))]
    found = [(kind, text.replace("Error in execution: ", "")) for kind, text in found]
    assert found == [found[0]] * 4  # but for what ONNX Runtime's Python begins with
    assert "ONNX Runtime failed in block_0" in found[0][1]


def test_damaged_bytes_are_the_error_of_python(mlp: Calls) -> None:
    blobs = [blob.clone() for blob in mlp.blobs]
    for blob in blobs:
        blob[len(blob) // 2] ^= 1
    found = []
    for runtime in ("python", "cpp"):
        with policy(runtime=runtime):
            found.append(error_of(lambda: OP([X], blobs, mlp.text)))
    assert found[0] == found[1]
    assert found[0][0] is PackageError


def test_calls_that_something_intercepts(mlp: Calls) -> None:
    expected = mlp.model(X).detach()
    module = mlp.program.module()
    mlp(X)
    strided, negative = X.t().contiguous().t(), torch.complex(X, -X).conj().imag
    assert negative.is_neg()
    torch.testing.assert_close(mlp(strided)[0], expected)
    torch.testing.assert_close(mlp(negative)[0], expected)
    torch.testing.assert_close(mlp(X[::2])[0], expected[::2])
    with_gradient = X.clone().requires_grad_()
    assert not mlp(with_gradient)[0].requires_grad
    assert mlp(torch.nn.Parameter(X))[0].equal(mlp(X)[0])
    (meta,) = OP([torch.ones(5, 8, device="meta")], mlp.blobs, mlp.text)
    assert (meta.device.type, meta.shape) == ("meta", (5, 4))
    assert OP(inputs=[X], blobs=mlp.blobs, manifest=mlp.text)[0].equal(mlp(X)[0])
    traced = torch.jit.trace(lambda x: mlp(x)[0], X)
    torch.testing.assert_close(traced(X[:2]), expected[:2])
    again = torch.export.export(module, (X,))
    assert [n for n in again.graph.nodes if n.target is OP.default]
    torch.testing.assert_close(torch.compile(module, backend="aot_eager")(X), expected)
    with torch.inference_mode():
        torch.testing.assert_close(mlp(X)[0], expected)


def test_the_operator_is_the_same_key(mlp: Calls) -> None:
    mlp(X)
    assert {OP.default: 1}[torch.ops.portrt.execute_engine.default] == 1
    assert str(OP.default) == "portrt.execute_engine.default"
    assert OP.default is copy.deepcopy(OP.default)


def test_threads_and_tasks_have_policies_of_their_own(mlp: Calls) -> None:
    found: dict[str, str] = {}

    def work() -> None:
        mlp(X)
        found["thread"] = mlp.runtime

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    async def within(runtime: str) -> None:
        with policy(runtime=runtime):
            await asyncio.sleep(0)
            mlp(X)
            found[f"task {runtime}"] = mlp.runtime

    async def both() -> None:
        await asyncio.gather(within("python"), within("cpp"))

    asyncio.run(both())
    assert found == {"thread": "python", "task python": "python", "task cpp": "cpp"}


def test_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    assert effective({}, None).runtime == "python"
    assert effective({"runtime": "cpp"}, None).runtime == "python"  # a file does not choose
    monkeypatch.setenv("PORTRT_RUNTIME", "cpp")
    assert effective({}, None).runtime == "cpp"
    assert effective({}, None, "python").runtime == "python"
    assert effective({}, Policy(runtime="cpp"), "python").runtime == "cpp"
    monkeypatch.setenv("PORTRT_RUNTIME", "rust")
    with pytest.raises(SettingsError, match="runtime is 'rust'"):
        effective({}, None)
    with pytest.raises(SettingsError, match="one of 'python', 'cpp'"), policy(runtime="c++"):
        pass


@pytest.mark.parametrize(
    ("given", "expected"), [(True, "python"), (False, "cpp"), (None, "python")]
)
def test_a_program_has_the_runtime_that_it_was_compiled_for(given: Any, expected: str) -> None:
    def in_new_context() -> None:
        calls = Calls(model(), ROWS, use_python_runtime=given)
        assert calls.runtime == expected
        module = calls.program.module()
        torch.testing.assert_close(module(X), calls.model(X))
        assert [item.runtime for item in report(calls.program)] == [expected]
        assert [item.runtime for item in report(module)] == [expected]

    thread = Failing(in_new_context)
    thread.run_through()


class Failing(threading.Thread):
    """A thread, without the policy of its creator; what it raises is raised."""

    def __init__(self, function: Callable[[], None]) -> None:
        super().__init__()
        self._function = function
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._function()
        except BaseException as err:
            self._error = err

    def run_through(self) -> None:
        self.start()
        self.join()
        if self._error is not None:
            raise self._error


def test_a_wrong_value_of_the_option() -> None:
    with pytest.raises(SettingsError, match="use_python_runtime is 1"):
        portrt.compile(model(), inputs=[X], use_python_runtime=1)  # type: ignore[call-overload]


class Rows(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(1, 2, 64, 8))

    def forward(self, x: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
        self.rows.index_copy_(2, place, x)
        return self.rows * 2


def test_what_cpp_cannot_run_runs_in_python(caplog: pytest.LogCaptureFixture) -> None:
    calls = Calls(Rows().eval(), torch.randn(1, 2, 1, 8), torch.tensor([1]))
    inputs = torch.randn(1, 2, 1, 8), torch.tensor([2])
    with caplog.at_level(logging.INFO, logger="portrt"):
        torch.testing.assert_close(calls.program.module()(*inputs), calls.model(*inputs))
    (line,) = [line for line in caplog.messages if "C++" in line]
    assert line == (
        "block_0: onnxruntime runs in Python: the C++ runtime does not update buffers in place"
    )
    assert calls.runtime == "python"
    assert report(calls.program)[0].runtime == "python"


@pytest.mark.parametrize(
    ("changes", "device", "reason"),
    [
        ({}, "cpu", ""),
        ({}, "cuda", "runs on CPU tensors, the inputs are on cuda"),
        ({"backend": "tensorrt"}, "cpu", "has no backend tensorrt"),
        ({"backend": "inductor"}, "cpu", "has no backend inductor"),
        ({"backend": "of_a_package"}, "cpu", "has no backend of_a_package"),
        ({"parts": object()}, "cpu", "does not run engines in parts"),
    ],
    ids=["onnxruntime", "cuda", "tensorrt", "inductor", "of_a_package", "parts"],
)
def test_which_engines_run_in_python(mlp: Calls, changes: Any, device: str, reason: str) -> None:
    engine = dataclasses.replace(decode(mlp.text).engines[0], **changes)
    found = cpp_engines.why_python(engine, torch.device(device))
    assert found == (f"the C++ runtime {reason}" if reason else "")


def test_new_weights_and_graphs_of_dynamo() -> None:
    first, second = model(), model()
    with torch.no_grad():
        for item in second.parameters():
            item.mul_(-0.5)
    calls = Calls(first, ROWS)
    module = calls.program.module()
    torch.testing.assert_close(module(X), first(X))
    program, _ = update_weights(calls.program, second.state_dict())
    changed = program.module()
    torch.testing.assert_close(changed(X), second(X))
    torch.testing.assert_close(module(X), first(X))
    assert report(program)[0].runtime == "cpp"
    options = {"engines": "onnxruntime", "min_block_size": 1, "use_python_runtime": False}
    compiled = torch.compile(first, backend="portrt", options=options)
    with torch.no_grad():
        for rows in (3, 2, 5):
            torch.testing.assert_close(
                compiled(X[:1].expand(rows, 8)), first(X[:1].expand(rows, 8))
            )


def test_a_source_runs_where_no_engine_may(mlp: Calls) -> None:
    with policy(engines=()), pytest.warns(UserWarning, match="block_0 runs in PyTorch"):
        torch.testing.assert_close(mlp(X)[0], mlp.model(X).detach())


@pytest.mark.filterwarnings("ignore:The tensor attributes:UserWarning")  # torch, of an LSTM
def test_sizes_without_elements_fall_back_to_the_source() -> None:
    lstm = torch.nn.LSTM(3, 4, batch_first=True).eval()
    calls = Calls(lstm, portrt.Input(min_shape=(0, 2, 3), opt_shape=(2, 2, 3), max_shape=(4, 2, 3)))
    torch.testing.assert_close(calls(torch.ones(2, 2, 3))[0], lstm(torch.ones(2, 2, 3))[0].detach())
    with pytest.warns(UserWarning, match="block_0 runs in PyTorch"):
        assert calls(torch.ones(0, 2, 3))[0].shape == (0, 2, 4)


@pytest.mark.parametrize("path", ["/nowhere/libportrt_runtime.so", "libc.so.6", ""])
def test_without_the_library_one_warning(
    mlp: Calls, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpp_library, "_found", [])
    monkeypatch.setattr(cpp_engines, "_done", set())
    monkeypatch.setattr(torch.ops, "loaded_libraries", set())
    monkeypatch.setenv("PORTRT_CPP_LIBRARY", path)
    calls = [copy.deepcopy(mlp.blobs) for _ in range(2)]
    with pytest.warns(UserWarning, match="engines run in Python. Run `portrt cpp build`") as seen:
        (first,) = OP([X], calls[0], mlp.text)
    assert len(seen) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (second,) = OP([X], calls[1], mlp.text)
    torch.testing.assert_close([first, second], [mlp.model(X).detach()] * 2)


def test_a_library_of_another_version_is_not_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its kernels would take the place of Python's."""
    built = Path(os.environ["PORTRT_CPP_LIBRARY"]).read_bytes()
    other = tmp_path / "libportrt_runtime.so"
    other.write_bytes(built.replace(b"portrt_python_interface", b"portrt_python_otherwise"))
    monkeypatch.setenv("PORTRT_CPP_LIBRARY", str(other))
    monkeypatch.setattr(cpp_library, "_found", [])
    with pytest.raises(BackendUnavailableError, match="no function portrt_python_interface"):
        cpp_library.library()
    assert str(other) not in Path("/proc/self/maps").read_text()


def test_which_library_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTRT_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("PORTRT_CPP_LIBRARY")
    monkeypatch.setattr(torch.ops, "loaded_libraries", {"/other/libtorchvision.so"})
    assert list(cpp_library._candidates()) == []
    stamps = {
        "older": {"portrt": metadata.version("portrt")},
        "newer": {"portrt": metadata.version("portrt")},
        "of_another_version": {"portrt": "0.0.1"},
        "of_before": {"key": "0"},
        "no_object": [],
    }
    paths = {}
    for age, (name, stamp) in enumerate(stamps.items()):
        paths[name] = tmp_path / "cpp" / name / "lib" / "libportrt_runtime.so"
        paths[name].parent.mkdir(parents=True)
        paths[name].touch()
        os.utime(paths[name], (age, age))
        paths[name].with_suffix(".json").write_text(json.dumps(stamp))
    paths["of_before"].with_suffix(".json").unlink()
    assert list(cpp_library._candidates()) == [str(paths["newer"]), str(paths["older"])]
    monkeypatch.setattr(torch.ops, "loaded_libraries", {"/a/libportrt_runtime.so", "/a/b.so"})
    assert next(cpp_library._candidates()) == "/a/libportrt_runtime.so"
    monkeypatch.setenv("PORTRT_CPP_LIBRARY", "/b/libportrt_runtime.so")
    assert list(cpp_library._candidates()) == ["/b/libportrt_runtime.so"]


def test_engines_are_closed_with_their_programs() -> None:
    calls = Calls(model(), ROWS)
    calls(X)
    session = load_block(calls.blobs, calls.text).selection(torch.device("cpu")).in_cpp
    assert session is not None
    number = session.number
    run = torch.ops.portrt.run_opened_engine
    torch.testing.assert_close(run([X], number)[0], calls.model(X).detach())
    del calls, session
    gc.collect()
    with pytest.raises(RuntimeError, match="no opened engine has the number"):
        run([X], number)


def test_profiles_name_layers(mlp: Calls) -> None:
    session = load_block(mlp.blobs, mlp.text).selection(torch.device("cpu")).session
    assert session.supports_layer_times
    assert session.layer_times([X], [(3, 4)], calls=1)


CPP_FIRST = """
import sys, torch
torch.ops.load_library(sys.argv[2])
x = torch.ones(2, 8)
from portrt.errors import NoUsableEngineError
from portrt.runtime import policy
from portrt.runtime.op import register
register()
module = torch.export.load(sys.argv[1]).module()
before = module(x)
with policy(runtime="cpp"):
    after = module(x)
assert torch.equal(before, after)
try:
    with policy(engines=(), fallback="error"):
        module(x)
except NoUsableEngineError:
    print("done")
"""


def test_the_library_may_be_loaded_before_portrt(
    mlp: Calls, cpp_runtime: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.export.save(mlp.program, tmp_path / "mlp.pt2")
    monkeypatch.setenv("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")
    source = Path(str(portrt.__file__)).parents[1]
    file = str(tmp_path / "mlp.pt2")
    printed = run_script(CPP_FIRST, file, str(cpp_runtime.library), path=(source,))
    assert printed.split() == ["done"]
