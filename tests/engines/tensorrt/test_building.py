"""The backend and the worker with the fake builder, up to a program that is loaded and called."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import portrt
from portrt.engines.tensorrt import runtime as tensorrt_runtime
from portrt.errors import BuildError
from portrt.runtime.calls import engine_calls, manifests_of
from portrt.targets.machine import Machine
from portrt.verdict import YES

VERSION = "10.13.0.35"


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 128)
        self.second = nn.Linear(128, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x)))


def model() -> Mlp:
    torch.manual_seed(0)
    return Mlp().eval()


def compiled(*engines: Any, module: Any = None, **options: Any) -> Any:
    x = portrt.Input(min_shape=(1, 64), opt_shape=(4, 64), max_shape=(32, 64))
    return portrt.compile(
        module or model(),
        inputs=[x],
        engines=engines or ("tensorrt",),
        min_block_size=1,
        output_format="exported_program",
        **options,
    )


def engine_of(program: Any) -> dict[str, Any]:
    (text,) = manifests_of(program)
    found: dict[str, Any] = json.loads(text)["engines"][0]
    return found


def plan_of(program: Any) -> dict[str, Any]:
    """The fake's engine."""
    node = next(iter(engine_calls(program)))
    names = {spec.arg.name: spec.target for spec in program.graph_signature.input_specs}
    index = engine_of(program)["data"]["blob"]
    blob = program.constants[names[node.args[1][index].name]]
    found: dict[str, Any] = json.loads(blob.numpy().tobytes())
    return found


@pytest.fixture
def cpu_engines(gpu: Any, install: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Engines run on CPU tensors by the fake, once their entries say that they take them."""
    trt = install("tensorrt", VERSION)
    facts = Machine(os="linux", arch="x86_64", versions={"tensorrt": VERSION, "tensorrt_lean": ""})
    monkeypatch.setattr(tensorrt_runtime, "this_machine", lambda: facts)
    monkeypatch.setattr(tensorrt_runtime.TensorRTRuntime, "can_run", lambda *_: YES)
    return trt


def on_cpu(program: Any) -> Any:
    """The program, with engines that say so."""
    for node in list(engine_calls(program)):
        node.update_arg(2, node.args[2].replace('"device":["cuda"]', '"device":["cpu"]'))
    program.graph_module.recompile()
    return program


@pytest.mark.parametrize("stripped", [False, True], ids=["whole", "stripped"])
def test_a_program_is_built_saved_loaded_and_called(
    builder: Any, cpu_engines: Any, tmp_path: Path, stripped: bool
) -> None:
    path = tmp_path / "model.pt2"
    program = compiled(check="off", strip_engine_weights=stripped)
    portrt.save(on_cpu(program), path)
    loaded = portrt.load(path, fallback="error").module()
    x = torch.randn(5, 64)
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), model()(x))
    assert len(cpu_engines.executed) == 1
    again = torch.export.load(path).module()
    torch.testing.assert_close(again(x), loaded(x))
    opened = [args for _, method, *args in cpu_engines.calls if method == "deserialize_cuda_engine"]
    assert len(opened) == 1  # the two programs share it


def test_a_stripped_engine_has_its_weights_outside(builder: Any) -> None:
    whole, small = compiled(), compiled(strip_engine_weights=True)
    entry = engine_of(small)
    assert sorted(entry["weights"]) == ["first.bias", "first.weight", "second.weight"]
    assert engine_of(whole)["weights"] == []
    weights_bytes = 4 * (64 * 128 + 128 + 128 * 8)
    assert engine_of(whole)["data"]["size"] - entry["data"]["size"] > weights_bytes
    flags = plan_of(small)["flags"]
    assert {"STRIP_PLAN", "REFIT_INDIVIDUAL"} <= set(flags)
    assert "REFIT" not in flags  # which would take all weights out
    assert "strip_plan" in entry["build"]["flags"]


def test_one_copy_of_the_weights_for_all_engines(builder: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"

    def size(**options: Any) -> int:
        portrt.save(compiled("tensorrt", "onnxruntime", **options), path)
        return path.stat().st_size

    weights_bytes = 4 * (64 * 128 + 128 + 128 * 8)
    saved = size() - size(strip_engine_weights=True)
    assert saved > weights_bytes


def test_weights_that_the_builder_keeps_stay_in_the_engine(builder: Any, cpu_engines: Any) -> None:
    builder(unmarkable=["second.weight"])
    program = compiled(check="off", strip_engine_weights=True)
    assert sorted(engine_of(program)["weights"]) == ["first.bias", "first.weight"]
    x = torch.randn(3, 64)
    with torch.no_grad():
        torch.testing.assert_close(on_cpu(program).module()(x), model()(x))


def test_programs_with_the_same_stripped_engine_and_other_weights(
    builder: Any, cpu_engines: Any
) -> None:
    """The plans are equal to the byte; the engines are not to be shared."""
    one, other = model(), model()
    with torch.no_grad():
        other.first.weight.add_(1.0)
    x = torch.randn(3, 64)
    for module in (one, other):
        program = on_cpu(compiled(module=module, check="off", strip_engine_weights=True))
        with torch.no_grad():
            torch.testing.assert_close(program.module()(x), module(x))


@pytest.mark.parametrize("what", ["unknown", "refused", "refit"])
def test_an_engine_that_cannot_be_refitted_is_a_verdict(
    builder: Any, cpu_engines: Any, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    program = on_cpu(compiled(check="off", strip_engine_weights=True))
    kind = cpu_engines.Refitter
    words = "refuses to put weights into"
    if what == "unknown":
        monkeypatch.setattr(kind, "get_all_weights", lambda _: ["w0"])
        words = r"lacks the weights \['w0'\], which its manifest does not name"
    elif what == "refused":
        monkeypatch.setattr(kind, "set_named_weights", lambda *_: False)
        words = r"rejects the weights 'first.bias' of type and shape torch.float32 \[128\]"
    else:
        monkeypatch.setattr(kind, "refit_cuda_engine", lambda _: False)
        words = "cannot refit the engine"
    x = torch.randn(3, 64)
    with pytest.warns(portrt.runtime.select.FallbackWarning, match=words), torch.no_grad():
        torch.testing.assert_close(program.module()(x), model()(x))


def test_a_builder_that_is_too_old_to_strip_says_so(builder: Any) -> None:
    builder(version="8.6.1")
    with pytest.raises(BuildError, match=r"tensorrt 8\.6\.1 is too old for it"):
        compiled(strip_engine_weights=True)


@pytest.mark.parametrize(
    ("dtype", "flag"), [(torch.float16, "FP16"), (torch.bfloat16, "BF16"), (torch.float32, None)]
)
def test_weakly_typed_networks_get_the_flags_of_the_models_types(
    builder: Any, dtype: torch.dtype, flag: str | None
) -> None:
    builder(version="8.6.1")
    x = portrt.Input(shape=(2, 64), dtype=dtype)
    program = portrt.compile(
        model().to(dtype),
        inputs=[x],
        engines=("tensorrt",),
        min_block_size=1,
        output_format="exported_program",
    )
    entry = engine_of(program)
    precisions = {"FP16", "BF16", "INT8", "FP8"} & set(plan_of(program)["flags"])
    assert precisions == ({flag} if flag else set())
    assert "explicit_batch" in entry["build"]["flags"]
    assert entry["build"]["opset"] == 17


def test_strongly_typed_networks_get_none(builder: Any) -> None:
    program = compiled(module=model())
    assert not {"FP16", "BF16", "INT8", "FP8"} & set(plan_of(program)["flags"])
    assert "strongly_typed" in engine_of(program)["build"]["flags"]
    assert engine_of(program)["build"]["opset"] == 23


@pytest.mark.parametrize("outside", [False, True])
def test_the_lean_runtime_goes_inside_or_outside(builder: Any, outside: bool) -> None:
    program = compiled(version_compatible=True, exclude_lean_runtime=outside)
    entry = engine_of(program)
    assert ("EXCLUDE_LEAN_RUNTIME" in plan_of(program)["flags"]) is outside
    assert entry["requires"]["lean_runtime"] == ("outside" if outside else "inside")
    assert entry["requires"]["host_code"] is True


def test_the_phases_of_the_builder_are_logged(
    builder: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "portrt"):
        compiled()
    assert "block_0 for tensorrt: Building (3 steps)" in caplog.messages


def test_warnings_of_the_builder_are_kept(builder: Any) -> None:
    assert engine_of(compiled())["build"]["warnings"] == ["this builder chooses no kernels"]


def test_nodes_that_the_parser_refuses_stay_in_pytorch(
    builder: Any, cpu_engines: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """With the parser's words; what is before and after them is in engines."""
    builder(refuses=["Relu"])
    program = on_cpu(compiled(check="off"))
    assert len(list(manifests_of(program))) == 2
    assert "relu of the 3 operators of block_0 stay in PyTorch" in caplog.text
    assert "no importer for Relu" in caplog.text
    x = torch.randn(3, 64)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), model()(x))


def test_the_timing_cache_is_made_used_and_begun_anew(builder: Any, tmp_path: Path) -> None:
    def build(level: int) -> bytes:
        compiled(cache_dir=str(tmp_path / "cache"), optimization_level=level)
        (path,) = (tmp_path / "cache").rglob("*.timing")
        assert path.name == f"tensorrt-{VERSION}-Fake-GPU.timing"
        return path.read_bytes()

    assert build(1) == b"measured "
    assert build(2) == b"measured measured "
    (path,) = (tmp_path / "cache").rglob("*.timing")
    path.write_bytes(b"damaged")
    assert build(3) == b"measured "


def test_no_timing_cache_where_the_cache_is_off(builder: Any, tmp_path: Path) -> None:
    compiled(cache_dir="off")
    assert list(tmp_path.rglob("*.timing")) == []


def test_where_attention_has_no_kernel_it_is_decomposed(builder: Any) -> None:
    class Attention(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.scaled_dot_product_attention(x, x, x)

    def opset() -> int:
        program = portrt.compile(
            Attention().eval(),
            inputs=[torch.randn(1, 2, 4, 8)],
            engines=("tensorrt",),
            min_block_size=1,
            output_format="exported_program",
        )
        return int(engine_of(program)["build"]["opset"])

    assert opset() == 23
    builder(unbuildable=["Attention"])
    assert opset() == 20
    builder(refuses=["Attention"])
    assert opset() == 20


def test_an_engine_that_does_not_open_is_a_verdict_and_the_next_one_runs(
    builder: Any, cpu_engines: Any, caplog: pytest.LogCaptureFixture
) -> None:
    program = on_cpu(compiled("tensorrt", "onnxruntime", check="off"))
    cpu_engines.Runtime.deserialize_cuda_engine = lambda *_: None
    x = torch.randn(3, 64)
    with torch.no_grad(), caplog.at_level("INFO", "portrt"):
        torch.testing.assert_close(program.module()(x), model()(x))
    assert cpu_engines.executed == []
    said = "block_0 runs as onnxruntime; tensorrt: no: it could not be opened: tensorrt 10.13.0.35"
    assert said in caplog.text


def test_an_engine_with_host_code_needs_trust(
    builder: Any, cpu_engines: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "model.pt2"
    program = on_cpu(compiled(version_compatible=True, check="off"))
    portrt.save(program, path)
    from portrt.runtime import trust

    monkeypatch.setattr(trust, "_trusted", set())  # as in another process
    x = torch.randn(3, 64)
    with pytest.warns(portrt.runtime.select.FallbackWarning, match="carries host code"):
        portrt.load(path).module()(x)
    assert cpu_engines.executed == []
    with torch.no_grad():
        y = portrt.load(path, trust="host-code", fallback="error").module()(x)
    torch.testing.assert_close(y, model()(x).detach())
    allowed = [it for it, method, *_ in cpu_engines.calls if method == "deserialize_cuda_engine"]
    assert [runtime.engine_host_code_allowed for runtime in allowed] == [True]


@pytest.mark.parametrize(
    ("versions", "words"),
    [
        ({"tensorrt": "10.14.0"}, "not version compatible: built by tensorrt 10.13.0.35"),
        ({"tensorrt": "", "tensorrt_lean": ""}, "is installed"),
    ],
)
def test_another_release_is_a_verdict_before_anything_is_opened(
    builder: Any,
    cpu_engines: Any,
    monkeypatch: pytest.MonkeyPatch,
    versions: dict[str, str],
    words: str,
) -> None:
    program = on_cpu(compiled(check="off"))
    monkeypatch.setattr(tensorrt_runtime, "this_machine", lambda: Machine(versions=versions))
    with pytest.warns(portrt.runtime.select.FallbackWarning, match=words):
        program.module()(torch.randn(3, 64))
    assert cpu_engines.calls == []


@pytest.mark.parametrize("decomposed", [False, True], ids=["as it is", "after a decomposition"])
def test_what_has_no_form_at_the_opset_of_the_parser_stays_in_pytorch(
    builder: Any, decomposed: bool
) -> None:
    """TensorRT 8.6 reads opset 17, which has no bitwise operators on whole numbers."""
    builder(version="8.6.0")

    class Masked(nn.Module):
        def forward(self, x: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
            h = (x * 2).exp().relu() + x
            if decomposed:
                h = torch.addcdiv(h, x, x.exp())
            return torch.bitwise_and(k, 5).to(x.dtype) + h.tanh() * h

    program = portrt.compile(
        Masked(),
        inputs=[torch.randn(4, 64), torch.arange(64, dtype=torch.int32)],
        engines=("tensorrt",),
        min_block_size=1,
        check="off",
        output_format="exported_program",
    )
    assert list(engine_calls(program))
    left = [str(node.target) for node in program.graph.nodes if "aten" in str(node.target)]
    assert left == ["aten.bitwise_and.Scalar"]
