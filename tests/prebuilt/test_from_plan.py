"""from_plan: programs of plans that others built. The oracle of numbers is eager PyTorch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from fake_plans import FakeBackend, tensorrt_plan
from tiny import call_of, edit_program
from torch import nn
from torch.export import ExportedProgram

import portrt
from portrt.errors import (
    CaptureError,
    CheckError,
    InputError,
    LoadError,
    NoUsableEngineError,
    PackageError,
    PartitionError,
    SettingsError,
)
from portrt.runtime.module import module_of
from portrt.runtime.select import FallbackWarning
from portrt.verdict import YES, Verdict

X = portrt.Input(min_shape=(1, 8), opt_shape=(4, 8), max_shape=(32, 8))


def adopt(plan: Any, inputs: Any, *args: Any, **options: Any) -> ExportedProgram:
    program = portrt.from_plan(plan, inputs, *args, output_format="exported_program", **options)
    assert isinstance(program, ExportedProgram)
    return program


def y_of(*tensors: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"y": tensors[0].new_empty(tensors[0].shape[0], 4)}


def entry_of(program: ExportedProgram) -> dict[str, Any]:
    return call_of(program).entry


def on_cpu(program: ExportedProgram) -> Callable[..., Any]:
    """Its module, with the plan said to take CPU tensors, so that the fake can be handed some."""
    edit_program(program, lambda e: e["engines"][0]["requires"].update(device=["cpu"]))
    return module_of(program)


# ---------------------------------------------------------------- with a source


def test_with_a_source_it_runs_in_pytorch_where_the_plan_cannot(
    rtx_plan: bytes, tmp_path: Path
) -> None:
    program = adopt(rtx_plan, [X], source=tiny.model(), output_names=["y"])
    torch.export.save(program, tmp_path / "a.pt2")
    x = torch.linspace(-1, 1, 24).view(3, 8)
    torch.save(tiny.model()(x).detach(), tmp_path / "y.pt")
    code = """
        import sys, torch, warnings
        module = torch.export.load(sys.argv[1]).module()
        x = torch.linspace(-1, 1, 24).view(3, 8)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            y = module(x)
        print(said[0].message)
        torch.testing.assert_close(y, torch.load(sys.argv[2]), rtol=0, atol=0)
    """
    done = tiny.python(code, str(tmp_path / "a.pt2"), str(tmp_path / "y.pt"))
    assert done.returncode == 0, done.stderr
    assert "tensorrt_rtx: no: it takes cuda tensors, the inputs are on cpu" in done.stdout


def test_what_the_manifest_says(rtx_plan: bytes) -> None:
    program = adopt(rtx_plan, {"x": X}, source=tiny.model(), output_names=["y"])
    call = call_of(program)
    (engine,) = call.entry["engines"]
    assert call.blobs[engine["data"]["blob"]].numpy().tobytes() == rtx_plan
    built = tiny.call_of(tiny.shared("tensorrt_rtx")).engine("tensorrt_rtx")
    assert engine["backend"] == "tensorrt_rtx"
    assert engine["requires"] == built["requires"]
    assert engine["build"] == {
        "library": "tensorrt_rtx",
        "version": built["build"]["version"],
        "adopted": True,
        "bindings": {"inputs": ["x"], "outputs": ["y"]},
    }
    assert set(engine["check"]) == {"skipped"}
    (shape,) = [spec["shape"] for spec in call.entry["inputs"]]
    assert {key: shape[0][key] for key in ("min", "opt", "max")} == {"min": 1, "opt": 4, "max": 32}
    assert call.entry["source_weights"]
    assert call.entry["format"] == tiny.call_of(tiny.shared("tensorrt_rtx")).entry["format"] == 1


def test_save_load_inspect_verify_and_extract(rtx_plan: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.pt2"
    portrt.save(adopt(rtx_plan, [X], source=tiny.model(), output_names=["y"]), path)
    assert portrt.load(path, verify=True)
    portrt.files.extract(path, "plan", tmp_path / "plan")
    assert (tmp_path / "plan").read_bytes() == rtx_plan
    (block,) = portrt.files.verify(path).blocks
    assert "on CUDA tensors, the inputs are on cpu" in block.engines[0].reason
    portrt.files.add_engine(path, "onnxruntime")
    (block,) = portrt.files.verify(path).blocks
    assert [(engine.backend, engine.ran) for engine in block.engines] == [
        ("tensorrt_rtx", False),
        ("onnxruntime", True),
    ]
    assert portrt.files.check(path, "device=cpu").outcome == "engine"


def test_an_exported_program_is_a_source(rtx_plan: bytes) -> None:
    source = torch.export.export(tiny.model(), (torch.zeros(3, 8),))
    module = portrt.from_plan(rtx_plan, [torch.zeros(3, 8)], source=source, output_names=["y"])
    x = torch.randn(3, 8)
    with pytest.warns(FallbackWarning):
        torch.testing.assert_close(module(x), tiny.model()(x))


class Two(nn.Module):
    """Uses its arguments, and makes its results, in another order than its own."""

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> dict[str, torch.Tensor]:
        low = second.sin()
        high = first + second
        return {"high": high, "low": low}


def test_bindings_are_in_the_order_of_the_block(fake: FakeBackend) -> None:
    inputs = {"input.a": torch.zeros(2, 3), "input.b": torch.zeros(2, 3)}
    program = adopt(tensorrt_plan(), inputs, source=Two(), check="off")
    entry = entry_of(program)
    bindings = entry["engines"][0]["build"]["bindings"]
    order = {"first": "input.a", "second": "input.b"}
    assert bindings["inputs"] == [order[spec["name"]] for spec in entry["inputs"]]

    def run(*tensors: torch.Tensor) -> list[torch.Tensor]:
        given = dict(zip(bindings["inputs"], tensors, strict=True))
        made = {"high": given["input.a"] + given["input.b"], "low": given["input.b"].sin()}
        return [made[name] for name in bindings["outputs"]]

    fake.answer = run
    first, second = torch.randn(2, 3), torch.randn(2, 3)
    got = on_cpu(program)(first, second)
    want = Two()(first, second)
    assert list(got) == ["high", "low"]
    for name in got:
        torch.testing.assert_close(got[name], want[name], rtol=0, atol=0)


def test_other_names_for_the_outputs(fake: FakeBackend) -> None:
    inputs = [torch.zeros(2, 3), torch.zeros(2, 3)]
    for options in ({"output_names": ["one", "two"]}, {"outputs": dict.fromkeys(("one", "two"))}):
        program = adopt(tensorrt_plan(), inputs, source=Two(), check="off", **options)
        bindings = entry_of(program)["engines"][0]["build"]["bindings"]
        assert set(bindings["outputs"]) == {"one", "two"}
        assert set(bindings["inputs"]) == {"first", "second"}


def test_an_engine_that_can_run_here_is_compared(fake: FakeBackend) -> None:
    plan, options = tensorrt_plan(), {"source": tiny.model(), "output_names": ["y"]}
    fake.answer = lambda x: [tiny.model()(x).detach()]
    program = adopt(plan, [X], **options)
    (row,) = entry_of(program)["engines"][0]["check"]["outputs"]
    assert row["ok"]
    assert row["max_abs"] == 0.0
    fake.answer = lambda x: [tiny.model()(x).detach() + 1]
    with pytest.raises(CheckError, match="differs from PyTorch"):
        adopt(plan, [X], **options)
    accepted = adopt(plan, [X], check="accept", **options)
    assert not entry_of(accepted)["engines"][0]["check"]["outputs"][0]["ok"]
    assert entry_of(adopt(plan, [X], check="off", **options))["engines"][0]["check"] is None


@pytest.mark.parametrize(
    ("precision", "name", "accepted"),
    [
        (None, None, False),
        ("fp32", None, False),
        (torch.float16, "fp16", True),
        ("bf16", "bf16", True),
        ("int8", "int8", True),
    ],
)
def test_the_tolerance_is_that_of_its_precision(
    fake: FakeBackend, precision: Any, name: str | None, accepted: bool
) -> None:
    """Off by 1 % of the largest number."""
    fake.answer = lambda x: [tiny.model()(x).detach() * 1.01]
    options = {"source": tiny.model(), "output_names": ["y"], "precision": precision}
    if not accepted:
        with pytest.raises(CheckError):
            adopt(tensorrt_plan(), [X], **options)
        return
    (engine,) = entry_of(adopt(tensorrt_plan(), [X], **options))["engines"]
    assert engine["build"].get("precision") == name
    assert engine["check"]["outputs"][0]["ok"]


def test_what_cannot_run_here_is_compared_where_it_is_opened_first(
    fake: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        FakeBackend, "accepts", lambda *_: Verdict.no("library_version", "not here")
    )
    options = {"source": tiny.model(), "output_names": ["y"], "check": "first-open"}
    program = adopt(tensorrt_plan(), [X], **options)
    assert entry_of(program)["engines"][0]["check"] == {"skipped": "not here"}
    assert entry_of(program)["policy"] == {"fallback": None, "check": "first-open"}
    monkeypatch.setattr(FakeBackend, "accepts", lambda *_: YES)
    fake.answer = lambda x: [tiny.model()(x).detach() + 1]
    module, x = on_cpu(program), torch.randn(2, 8)
    with pytest.warns(FallbackWarning, match="differs from the source"):
        torch.testing.assert_close(module(x), tiny.model()(x))


def test_code_that_is_not_trusted_is_not_run_for_the_comparison(fake: FakeBackend) -> None:
    fake.answer = lambda x: [tiny.model()(x).detach()]
    options = {"source": tiny.model(), "output_names": ["y"], "version_compatible": True}
    program = adopt(tensorrt_plan(), [X], **options)
    assert "carries host code" in entry_of(program)["engines"][0]["check"]["skipped"]
    assert fake.opened == []
    module = on_cpu(program)
    x = torch.randn(2, 8)
    with pytest.warns(FallbackWarning, match="carries host code"):
        module(x)
    trusted = adopt(tensorrt_plan(), [X], trust="host-code", **options)
    assert entry_of(trusted)["engines"][0]["check"]["outputs"][0]["ok"]
    assert fake.code_allowed == [True]
    on_cpu(trusted)(x)
    assert fake.code_allowed == [True, True]


def test_a_plan_that_hides_its_code_is_given_no_leave(fake: FakeBackend) -> None:
    """Whatever is said of it: the library is told that nobody trusts it."""
    fake.answer = lambda x: [tiny.model()(x).detach()]
    adopt(tensorrt_plan(), [X], source=tiny.model(), output_names=["y"])
    assert fake.code_allowed == [False]


class Mutating(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count.add_(1)
        return x * self.count


class Picking(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[x > 0].sin()


class Lazy(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x.sin()


class Twice(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = x.sin()
        return y, y


class Through(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x, x.sin()


class Nothing(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


Z = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("source", "inputs", "names", "error", "words"),
    [
        (Picking(), [Z], ["y"], PartitionError, "depends on data"),
        (Nothing(), [Z], ["y"], PartitionError, "0 blocks"),
        (Lazy(), [Z, Z], ["y"], SettingsError, "does not use 'y'"),
        (Twice(), [Z], ["a", "b"], SettingsError, "one tensor twice"),
        (Through(), [Z], ["a", "b"], SettingsError, "one of its inputs"),
        (Two(), [Z, Z], ["y"], SettingsError, "returns 2 tensors, and 1 output names"),
        (Two(), [Z, Z], ["y", "y"], SettingsError, "are not distinct"),
        (Two(), [Z, Z], ["first", "y"], SettingsError, "are not distinct"),
        (Two(), [Z], None, SettingsError, "1 inputs were given"),
        (Two(), {"a": Z}, None, CaptureError, "missing a required argument"),
        (Two(), {"a": Z, "b": Z, "c": Z}, None, CaptureError, "too many positional"),
        (tiny.model(), [X], None, SettingsError, "names of the plan's outputs are not known"),
        (tiny.model(), X, ["y"], SettingsError, "inputs is a Input"),
        (lambda x: x, [Z], ["y"], SettingsError, "the source is a builtins.function"),
    ],
)
@pytest.mark.filterwarnings("ignore:The tensor attribute.*assigned during export")
def test_sources_and_names_that_do_not_fit(
    source: Any, inputs: Any, names: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error) as caught:
        adopt(tensorrt_plan(), inputs, source=source, output_names=names)
    assert words in str(caught.value)


def test_a_source_with_state_is_refused() -> None:
    with pytest.raises((SettingsError, PartitionError)):
        adopt(tensorrt_plan(), [Z], source=Mutating(), output_names=["y"])


def test_examples_beside_a_source_must_agree() -> None:
    with pytest.raises(SettingsError, match="float16 of rank 2 in outputs, and float32"):
        adopt(tensorrt_plan(), [Z], {"y": Z.half()}, source=torch.nn.Tanh())
    with pytest.raises(SettingsError, match="and there is a source"):
        adopt(tensorrt_plan(), [Z], y_of, source=torch.nn.Tanh())


# ---------------------------------------------------------------- without a source


def test_without_a_source_the_error_names_everything(tmp_path: Path) -> None:
    program = adopt(tensorrt_plan(), {"x": X}, y_of)
    torch.export.save(program, tmp_path / "a.pt2")
    code = """
        import sys, torch
        module = torch.export.load(sys.argv[1]).module()
        try:
            module(torch.zeros(3, 8))
        except RuntimeError as err:
            print(type(err).__name__, err)
    """
    done = tiny.python(code, str(tmp_path / "a.pt2"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("NoUsableEngineError no engine of block_0 can run here on cpu")
    assert "the file has no source" in done.stdout
    assert "tensorrt: no: it takes cuda tensors, the inputs are on cpu" in done.stdout
    assert entry_of(program)["engines"][0]["check"] == {
        "skipped": "there is no source to compare with"
    }
    (block,) = portrt.inspect(tmp_path / "a.pt2").blocks
    assert block.source_bytes is None
    verdict = portrt.files.check(tmp_path / "a.pt2", "device=cpu")
    assert verdict.outcome == "cannot"


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("sm=90,tensorrt=8.6.0", ""),
        ("sm=90,tensorrt=10.3", "built by tensorrt 8.6.0.12, and tensorrt 10.3 is installed"),
        ("sm=89,tensorrt=8.6.0", "built for compute capability 9.0, the GPU has 8.9"),
    ],
)
def test_the_file_tells_where_the_plan_runs(tmp_path: Path, target: str, reason: str) -> None:
    torch.export.save(adopt(tensorrt_plan(), {"x": X}, y_of), tmp_path / "a.pt2")
    found = portrt.files.check(tmp_path / "a.pt2", target + ",device=cuda")
    assert found.outcome == ("cannot" if reason else "engine")
    assert reason in found.blocks[0].engines[0].verdict.reason


SIZES = [
    (lambda x: x.new_empty(x.shape[0], 4), lambda b: (b, 4)),
    (lambda x: x.new_empty((x.shape[0] + 3) // 4, 2 * x.shape[0]), lambda b: ((b + 3) // 4, 2 * b)),
    (lambda x: torch.empty_like(x), lambda b: (b, 8)),
    (lambda x: x, lambda b: (b, 8)),
    (lambda x: x.sum(), lambda b: ()),
    (lambda x: x.new_empty(0), lambda b: (0,)),
    (lambda x: torch.cat([x, x]).flatten(), lambda b: (16 * b,)),
]


@pytest.mark.parametrize(("function", "shape"), SIZES)
@pytest.mark.parametrize("batch", [1, 2, 7, 32])
def test_shapes_follow_the_inputs(fake: FakeBackend, function: Any, shape: Any, batch: int) -> None:
    module = on_cpu(adopt(tensorrt_plan(), {"x": X}, function, output_names=["y"]))
    result = module(torch.zeros(batch, 8))
    assert fake.shapes == [(shape(batch),)]
    assert tuple(result.shape) == shape(batch)
    with pytest.raises(InputError, match="from 1 to 32"):
        module(torch.zeros(33, 8))


def test_several_inputs_and_outputs(fake: FakeBackend) -> None:
    """Names that are no Python names, dtypes, shared dimensions, and a new process."""
    shape = {"min_shape": (1, 1), "opt_shape": (8, 32), "max_shape": (32, 128)}
    shared = {0: "batch", 1: "length"}
    ids = portrt.Input(**shape, dtype=torch.int64, shared_dims=shared)
    program = adopt(
        tensorrt_plan(),
        {"input.1": ids, "class": ids},
        lambda a, b: {
            "state::0": torch.empty(a.shape[0], a.shape[1], 16, dtype=torch.float16),
            "pooled": torch.empty(b.shape[0], 16),
        },
    )
    entry = entry_of(program)
    assert [spec["name"] for spec in entry["inputs"]] == ["input.1", "class"]
    assert entry["inputs"][1]["shape"] == [["dim", 0, 0], ["dim", 0, 1]]
    assert [spec["name"] for spec in entry["outputs"]] == ["state::0", "pooled"]
    assert [spec["dtype"] for spec in entry["outputs"]] == ["float16", "float32"]
    bindings = entry["engines"][0]["build"]["bindings"]
    assert bindings == {"inputs": ["input.1", "class"], "outputs": ["state::0", "pooled"]}
    module = on_cpu(program)
    fake.answer = lambda *_: [
        torch.zeros(s, dtype=d) for s, d in zip(fake.shapes[-1], (torch.half, None), strict=True)
    ]
    state, pooled = module(torch.ones(2, 5).long(), torch.ones(2, 5).long())
    assert state.shape == (2, 5, 16)
    assert pooled.shape == (2, 16)
    with pytest.raises(InputError, match="has shape"):  # batches that differ
        module(torch.ones(2, 5).long(), torch.ones(3, 5).long())


def test_dynamic_shapes_as_torch_takes_them(fake: FakeBackend) -> None:
    batch = torch.export.Dim("batch", min=1, max=16)
    for spec in (({0: batch},), {"x": {0: batch}}):
        program = adopt(tensorrt_plan(), {"x": torch.zeros(3, 8)}, y_of, dynamic_shapes=spec)
        assert entry_of(program)["inputs"][0]["shape"][0]["max"] == 16
        assert on_cpu(program)(torch.zeros(5, 8)).shape == (5, 4)


def test_static_examples(fake: FakeBackend) -> None:
    examples = {"a": torch.zeros(2, 4), "b": torch.zeros(3, dtype=torch.int32)}
    module = on_cpu(adopt(tensorrt_plan(), {"x": torch.zeros(2, 8)}, examples))
    fake.answer = lambda x: [torch.ones(2, 4), torch.ones(3, dtype=torch.int32)]
    first, second = module(torch.zeros(2, 8))
    assert (first.shape, second.dtype) == ((2, 4), torch.int32)


@pytest.mark.parametrize(
    ("inputs", "outputs", "names", "error", "words"),
    [
        ({"x": X}, None, None, SettingsError, "neither outputs nor source was given"),
        ([X], y_of, None, SettingsError, "inputs is a list, and there is no source to name them"),
        ({}, y_of, None, SettingsError, "inputs is empty"),
        ({"x": 3}, y_of, None, SettingsError, "input 'x' is a builtins.int"),
        ({"": X}, y_of, None, SettingsError, "an input is named ''"),
        ({3: X}, y_of, None, SettingsError, "an input is named 3"),
        ({"y": X}, y_of, None, SettingsError, "are not distinct"),
        ({"x": X}, 3, None, SettingsError, "outputs is 3, and there is no source"),
        ({"x": X}, {}, None, SettingsError, "outputs is {}"),
        ({"x": X}, {"y": 3}, None, SettingsError, "outputs is {'y': 3}"),
        ({"x": X}, lambda x: x.sin(), None, SettingsError, "output_names is None"),
        ({"x": X}, lambda x: [x, x], ["y"], SettingsError, "returned 2 tensors"),
        ({"x": X}, lambda x: x.shape[0], ["y"], SettingsError, "returned ['SymInt']"),
        ({"x": X}, lambda x: None, ["y"], SettingsError, "returned ['NoneType']"),
        ({"x": X}, lambda x: x.to(torch.float8_e5m2fnuz), ["y"], SettingsError, "is torch.float8"),
        ({"x": X}, lambda x: x.reshape(5, 5), ["y"], CaptureError, "cannot be traced"),
        ({"x": X}, lambda a, b: a, ["y"], CaptureError, "cannot be traced"),
        (
            *({"x": X}, lambda x: x.new_empty(1 if x.shape[0] > 3 else 2), ["y"]),
            *(CaptureError, "cannot be traced"),
        ),
    ],
)
def test_inputs_and_outputs_that_do_not_fit(
    inputs: Any, outputs: Any, names: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error) as caught:
        adopt(tensorrt_plan(), inputs, outputs, output_names=names)
    assert words in str(caught.value)
    assert caught.value.expected  # type: ignore[attr-defined]
    assert caught.value.remedy  # type: ignore[attr-defined]


def test_no_path_of_this_machine_is_stored(tmp_path: Path) -> None:
    torch.export.save(adopt(tensorrt_plan(), {"x": X}, y_of), tmp_path / "a.pt2")
    data = (tmp_path / "a.pt2").read_bytes()
    assert b"outputs.py" not in data
    assert str(Path(portrt.__file__).parent).encode() not in data


# ---------------------------------------------------------------- the plan


@pytest.mark.parametrize("form", ["bytes", "bytearray", "memoryview", "tensor", "path", "str"])
def test_forms_of_the_bytes(form: str, tmp_path: Path) -> None:
    data = tensorrt_plan(b"content")
    (tmp_path / "a.plan").write_bytes(data)
    forms: dict[str, Any] = {
        "bytes": data,
        "bytearray": bytearray(data),
        "memoryview": memoryview(data),
        "tensor": torch.frombuffer(bytearray(data), dtype=torch.uint8),
        "path": tmp_path / "a.plan",
        "str": str(tmp_path / "a.plan"),
    }
    call = call_of(adopt(forms[form], {"x": X}, y_of))
    assert call.blobs[0].numpy().tobytes() == data


@pytest.mark.parametrize(
    ("plan", "error", "words"),
    [
        (b"", PackageError, "are not a usable plan"),
        (b"onnx model", PackageError, "begin with b'onnx mod'"),
        (tensorrt_plan()[:-1], PackageError, "its header states"),
        ("/no/such.plan", LoadError, "'/no/such.plan' cannot be read: No such file"),
        (torch.zeros(3), SettingsError, "a tensor of torch.float32"),
        (3, SettingsError, "the plan is a builtins.int"),
    ],
)
def test_what_is_no_plan(plan: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error) as caught:
        adopt(plan, {"x": X}, y_of)
    assert words in str(caught.value)


DEFAULT = {
    "device": ["cuda"],
    "tensorrt": "8.6.0.12",
    "compute_capabilities": ["9.0"],
    "version_compatible": False,
    "lean_runtime": None,
    "host_code": False,
}
COMPATIBLE = {"version_compatible": True, "lean_runtime": "outside", "host_code": True}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, DEFAULT),
        ({"version_compatible": False}, DEFAULT),
        ({"compute_capabilities": "sm_90"}, DEFAULT),
        ({"version_compatible": True}, DEFAULT | COMPATIBLE),
        (
            {"version_compatible": True, "lean_runtime": "inside"},
            DEFAULT | COMPATIBLE | {"lean_runtime": "inside"},
        ),
    ],
)
def test_what_it_requires(options: dict[str, Any], expected: dict[str, Any]) -> None:
    program = adopt(tensorrt_plan(), {"x": X}, y_of, **options)
    assert entry_of(program)["engines"][0]["requires"] == expected


def test_hardware_compatible() -> None:
    program = adopt(tensorrt_plan(), {"x": X}, y_of, hardware_compatible=True)
    requires = entry_of(program)["engines"][0]["requires"]
    assert requires["compute_capability_min"] == "8.0"
    assert "compute_capabilities" not in requires


def test_hardware_compatible_by_its_header() -> None:
    plan = bytearray(tensorrt_plan())
    plan[108] = 1  # its level, 0 in this plan, as the builder writes it for AMPERE_PLUS
    program = adopt(bytes(plan), {"x": X}, y_of)
    requires = entry_of(program)["engines"][0]["requires"]
    assert requires["compute_capability_min"] == "8.0"
    assert "compute_capabilities" not in requires


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"compute_capabilities": ["8.9"]}, "compute_capabilities is ('8.9',), and the plan's"),
        ({"compute_capabilities": ["big"]}, "is not a compute capability"),
        ({"compute_capabilities": "9.0", "hardware_compatible": True}, "hardware_compatible was"),
        ({"lean_runtime": "inside"}, "and the plan is not version compatible"),
        ({"lean_runtime": "there", "version_compatible": True}, "lean_runtime is 'there'"),
        ({"trust": "everything"}, "trust"),
        ({"precision": "int4"}, "precision is 'int4'"),
        ({"check": "first-open"}, "there is no source to compare with"),
        ({"check": "maybe"}, "check is 'maybe'"),
        ({"fallback": "cuda"}, "fallback is 'cuda'"),
        ({"output_format": "torchscript"}, "output_format is 'torchscript'"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], words: str) -> None:
    options = {"output_format": "exported_program", **options}
    with pytest.raises(SettingsError) as caught:
        portrt.from_plan(tensorrt_plan(), {"x": X}, y_of, **options)
    assert words in str(caught.value)


def test_tensorrt_rtx_is_not_version_compatible(rtx_plan: bytes) -> None:
    with pytest.raises(SettingsError, match="is of TensorRT-RTX"):
        adopt(rtx_plan, {"x": X}, y_of, version_compatible=True)


def test_the_policy_is_stored() -> None:
    module = portrt.from_plan(tensorrt_plan(), {"x": X}, y_of, fallback="error")
    with pytest.raises(NoUsableEngineError, match="the file has no source"):
        module(torch.zeros(2, 8))
    program = adopt(tensorrt_plan(), {"x": X}, y_of, fallback="error")
    assert json.loads(call_of(program).text)["policy"] == {"fallback": "error"}


def test_a_name_that_is_not_in_the_plan_is_warned_of(
    rtx_plan: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    adopt(rtx_plan, [X], source=tiny.model(), output_names=["linear_1"])
    assert "does not contain the name" not in caplog.text
    adopt(rtx_plan, [X], source=tiny.model(), output_names=["logits"])
    assert "the plan does not contain the name 'logits'" in caplog.text
