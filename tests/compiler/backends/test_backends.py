"""The backends: what they say of this machine, what they build, and that nothing is copied."""

from __future__ import annotations

import tempfile
import types
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from tiny import Call, call_of, compiled, model, python, shared
from torch import nn
from torch.export import Dim, ExportedProgram
from torch.nn import functional

import portrt
from portrt.compiler.backends import registry as builders
from portrt.compiler.backends.base import Builder
from portrt.compiler.backends.tensorrt import process
from portrt.compiler.backends.tensorrt.worker import build_engine as worker
from portrt.engines import registry
from portrt.engines.base import EngineRuntime
from portrt.engines.onnxruntime.session import OnnxRuntimeSession
from portrt.errors import BackendUnavailableError, BuildError
from portrt.numerics.compare import arithmetic_of
from portrt.runtime import op
from portrt.targets import backends
from portrt.weights import WeightsImage

X = torch.linspace(-1, 1, 24).view(3, 8)
RTX = builders.builder("tensorrt_rtx").can_build()
needs_tensorrt_rtx = pytest.mark.skipif(not RTX, reason=str(RTX))


def build(module: nn.Module, inputs: Any, engines: str, **options: Any) -> ExportedProgram:
    program = portrt.compile(
        module.eval(),
        inputs=inputs,
        engines=engines,
        min_block_size=1,
        output_format="exported_program",
        **options,
    )
    assert isinstance(program, ExportedProgram)
    return program


# The registry


def test_an_unknown_backend_lists_the_known_ones() -> None:
    with pytest.raises(BackendUnavailableError, match="there is no engine 'tensorflow'") as caught:
        registry.runtime("tensorflow")
    for name in backends.names():
        assert repr(name) in caught.value.expected
    assert "doctor" in caught.value.remedy


@pytest.mark.parametrize("name", backends.names())
def test_a_backend_is_stored_under_its_name_and_made_once(name: str) -> None:
    runtime: EngineRuntime = registry.runtime(name)
    builder: Builder = builders.builder(name)
    assert runtime.name == builder.name == name
    assert registry.runtime(name) is runtime
    assert builders.builder(name) is builder


@pytest.mark.parametrize("name", backends.names())
@pytest.mark.parametrize("device", ["cpu", "cuda", "xpu", "meta", ""])
def test_a_verdict_never_raises_and_a_no_has_a_reason_of_one_line(name: str, device: str) -> None:
    runtime, builder = registry.runtime(name), builders.builder(name)
    for verdict in (builder.can_build(), runtime.can_run(device)):
        assert verdict or verdict.reason
        assert "\n" not in verdict.reason


# Missing and broken


PRELUDE = """
    import sys, os
    import importlib.abc

    class Broken(importlib.abc.MetaPathFinder, importlib.abc.Loader):
        # `missing`: as if it were not installed; else it is found, and raises when it is imported.
        def __init__(self, name, missing):
            self.name, self.missing = name, missing
        def find_spec(self, fullname, path=None, target=None):
            if fullname.partition(".")[0] != self.name:
                return None
            if self.missing:
                raise ModuleNotFoundError("No module named %r" % fullname, name=fullname)
            from importlib.machinery import ModuleSpec
            return ModuleSpec(fullname, self)
        def create_module(self, spec):
            return None
        def exec_module(self, module):
            raise OSError("libsomething.so.1: cannot open shared object file\\nsecond line")

    sys.meta_path.insert(0, Broken(sys.argv[1], sys.argv[2] == "missing"))
    import torch, portrt
    from portrt.compiler.backends import registry as builders
    from portrt.engines import registry
"""
COMPILE = """
    import logging
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout)
    try:
        program = portrt.compile(
            torch.nn.Linear(8, 8).eval(), inputs=[torch.ones(2, 8)], min_block_size=1,
            engines=sys.argv[3:] or None, output_format="exported_program",
        )
        import json
        from portrt.runtime.calls import manifests_of
        for text in manifests_of(program):
            print("built", [item["backend"] for item in json.loads(text)["engines"]])
    except portrt.PortrtError as err:
        print(type(err).__name__, err)
"""


@pytest.mark.parametrize("how", ["missing", "broken"])
def test_without_onnxruntime_the_reason_and_the_command_are_said(how: str) -> None:
    code = """
        verdict = builders.builder("onnxruntime").can_build()
        print(bool(verdict), verdict)
        print(registry.runtime("onnxruntime").can_run("cpu") == verdict)
    """
    done = python(f"{PRELUDE}\n{code.replace('        ', '    ')}", "onnxruntime", how)
    said = {
        "missing": "ModuleNotFoundError: No module named 'onnxruntime'",
        "broken": "OSError: libsomething.so.1: cannot open shared object file",
    }
    assert done.stdout.splitlines() == [
        f"False no: onnxruntime cannot be imported: {said[how]} (pip install onnxruntime)",
        "True",
    ], done.stderr


@needs_tensorrt_rtx
def test_without_onnxruntime_tensorrt_rtx_still_builds() -> None:
    done = python(PRELUDE + COMPILE, "onnxruntime", "broken", "onnxruntime", "tensorrt_rtx")
    assert "no onnxruntime engine will be built: no: onnxruntime cannot be imported" in done.stdout
    assert "built ['tensorrt_rtx']" in done.stdout, done.stderr


def test_without_tensorrt_rtx_the_others_still_build() -> None:
    done = python(PRELUDE + COMPILE, "tensorrt_rtx", "missing", "tensorrt_rtx", "onnxruntime")
    assert (
        "no tensorrt_rtx engine will be built: no: the package tensorrt_rtx is not installed "
        "(pip install tensorrt-rtx-cu13)"
    ) in done.stdout
    assert "built ['onnxruntime']" in done.stdout, done.stderr


def test_without_tensorrt_rtx_its_name_alone_is_an_error_with_the_command() -> None:
    done = python(PRELUDE + COMPILE, "tensorrt_rtx", "missing", "tensorrt_rtx")
    assert "BackendUnavailableError none of the engines can be built here:" in done.stdout
    assert "Do: pip install tensorrt-rtx-cu13" in done.stdout


def test_broken_bindings_of_the_worker_name_the_command(tmp_path: Any) -> None:
    """Found, but not importable: only the worker learns it, since only the worker imports them."""
    package = tmp_path / "tensorrt_rtx"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('libnvinfer: no such file')")
    code = "import sys, torch, portrt\n" + COMPILE
    done = python(
        code.replace("\n    ", "\n"),
        "",
        "",
        "tensorrt_rtx",
        "onnxruntime",
        PYTHONPATH=str(tmp_path),
    )
    if "the package tensorrt_rtx is not installed" not in done.stdout:
        assert "tensorrt_rtx cannot be imported by" in done.stdout, done
        assert "ImportError: libnvinfer: no such file" in done.stdout
        assert "Do: pip install tensorrt-rtx-cu13" in done.stdout
    assert "built ['onnxruntime']" in done.stdout, done.stderr


# onnxruntime


def test_the_weights_are_used_where_they_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    """The values that ONNX Runtime gets point into the blob."""
    given: dict[str, int] = {}
    real = onnxruntime.SessionOptions

    class Options(real):  # type: ignore[misc,valid-type]
        def add_initializer(self, name: str, value: Any) -> None:
            given[name] = value.data_ptr()
            super().add_initializer(name, value)

    monkeypatch.setattr(onnxruntime, "SessionOptions", Options)
    call = call_of(shared("onnxruntime"))
    call(X)
    image = WeightsImage(call.blobs[0])
    assert sorted(given) == ["first.bias", "first.weight", "second.bias", "second.weight"]
    for name, address in given.items():
        assert address == image.tensor(name).data_ptr()
        assert image.tensor(name).untyped_storage().data_ptr() == call.blobs[0].data_ptr()


class Table(nn.Module):
    """A weight that ONNX Runtime neither changes nor repacks for a kernel."""

    def __init__(self, rows: int = 1000) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.ones(rows, 1))

    def forward(self, index: torch.Tensor) -> torch.Tensor:
        return functional.embedding(index, self.rows)


EACH = torch.arange(1000)


def test_an_opened_engine_reads_the_blob_itself() -> None:
    call = call_of(build(Table(), [EACH], "onnxruntime"))
    assert torch.equal(call(EACH)[0], torch.ones(1000, 1))
    WeightsImage(call.blobs[0]).tensor("rows").fill_(5.0)
    assert torch.equal(call(EACH)[0], torch.full((1000, 1), 5.0))


def test_opening_an_engine_takes_no_memory_for_the_weights() -> None:
    code = """
        import gc, resource, sys, torch
        from portrt.engines.onnxruntime.session import OnnxRuntimeSession
        from portrt.format.manifest import decode
        from portrt.weights import WeightsImage
        import onnxruntime

        def pages():
            return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() >> 20

        blobs, text = torch.load(sys.argv[1])
        manifest = decode(text)
        engine = manifest.engines[0]
        image = WeightsImage(blobs[0])
        image.tensor("rows").sum()
        before = pages()
        session = OnnxRuntimeSession(engine, manifest, blobs[engine.data.index], image)
        print(pages() - before)
    """
    call = call_of(build(Table(20_000_000), [EACH], "onnxruntime"))
    with tempfile.TemporaryDirectory() as folder:
        torch.save((list(call.blobs), call.text), f"{folder}/call.pt")
        done = python(code, f"{folder}/call.pt")
    assert int(done.stdout) < 40, done  # MiB; the weights are 76


def test_the_weights_outlive_the_program_while_a_session_is_in_use() -> None:
    call = call_of(build(Table(), [EACH], "onnxruntime"))
    block = op.load_block(call.blobs, call.text)
    del call
    for _ in range(5):
        junk = [torch.full((1000, 1), 7.0) for _ in range(50)]
        assert torch.equal(block.run([EACH])[0], torch.ones(1000, 1))
        del junk


class Recorder:
    """Stands in for a binding, and writes the addresses down."""

    def __init__(self, session: OnnxRuntimeSession) -> None:
        self.inner = session._session.io_binding()._iobinding
        self.taken: list[int] = []
        self.given: list[int] = []
        native_run = session._native_run
        session._native_run = lambda binding, options: native_run(self.inner, options)
        session._bindings[:] = [self]

    def bind_input(self, *args: Any) -> None:
        self.taken.append(args[-1])
        self.inner.bind_input(*args)

    def bind_output(self, *args: Any) -> None:
        self.given.append(args[-1])
        self.inner.bind_output(*args)


def recorded(call: Call) -> Recorder:
    block = op.load_block(call.blobs, call.text)
    session = block.selection(torch.device("cpu")).session
    assert isinstance(session, OnnxRuntimeSession)
    return Recorder(session)


def test_torchs_memory_goes_in_and_out_without_a_copy() -> None:
    call = call_of(shared("onnxruntime"))
    recorder = recorded(call)
    outputs = [call(X)[0] for _ in range(3)]
    assert recorder.taken == [X.data_ptr()] * 3
    assert recorder.given == [output.data_ptr() for output in outputs]
    assert len(set(recorder.given)) == 3


def test_an_input_that_is_not_contiguous_is_copied_once_and_lives_through_the_run() -> None:
    call = call_of(shared("onnxruntime"))
    recorder = recorded(call)
    x = torch.linspace(-1, 1, 24).view(8, 3).t()
    torch.testing.assert_close(call(x)[0], model()(x).detach())
    assert len(recorder.taken) == 1
    assert recorder.taken[0] != x.data_ptr()


def test_a_failed_run_does_not_spoil_the_next_one() -> None:
    call = call_of(shared("onnxruntime"))
    loose = call.edited(lambda entry: entry["inputs"][0]["shape"].__setitem__(1, ["dim", 0, 1]))
    want = loose(X)[0]
    for _ in range(3):
        with pytest.raises(portrt.errors.EngineError, match="ONNX Runtime failed in block_0"):
            loose(X[:, :5])
        assert torch.equal(loose(X)[0], want)


DTYPES = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.uint8,
    torch.bool,
]


class Reshuffle(nn.Module):
    """Operators that every dtype has."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x.t(), x.t()]).reshape(-1)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_goes_in_and_out(dtype: torch.dtype) -> None:
    x = torch.arange(6).view(2, 3).to(dtype)
    program = build(Reshuffle(), [x], "onnxruntime")
    (result,) = call_of(program)(x)
    assert result.dtype == dtype
    assert torch.equal(result, Reshuffle()(x))


def test_an_engine_says_what_it_was_built_with() -> None:
    engine = call_of(shared("onnxruntime")).engine("onnxruntime")
    facts = engine["build"]
    assert facts["library"] == "onnxruntime"
    assert facts["version"] == onnxruntime.__version__
    assert facts["opset"] == 23
    assert facts["onnx_nodes"] == 3
    requires = {"device": ["cpu"], "onnxruntime": "1.23", "nonzero_sizes": []}
    assert engine["requires"] == requires
    assert engine["data"]["size"] < 4096


# bfloat16 on the CPU, which ONNX Runtime lacks


class Half(nn.Module):
    """Matrix products, a norm, a softmax and an integer look-up, in the dtype of its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 16)
        self.norm = nn.LayerNorm(16)
        self.first = nn.Linear(16, 32)
        self.second = nn.Linear(32, 16)

    def forward(self, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.norm(self.table(index))
        y = self.second(functional.gelu(self.first(x))) + x
        return torch.softmax(y, -1), (y > 0)


def test_bfloat16_is_computed_as_eager_rounds_it() -> None:
    torch.manual_seed(0)
    module = Half().bfloat16().eval()
    index = torch.arange(10).view(2, 5)
    call = call_of(build(module, [index], "onnxruntime"))
    assert call.engine("onnxruntime")["build"]["flags"] == ["bfloat16 computed in float32"]
    got, positive = call(index)
    with torch.no_grad():
        want, want_positive = module(index)
    assert got.dtype == torch.bfloat16
    # One unit of bfloat16's 8 bits, where an order of additions differs.
    torch.testing.assert_close(got, want, rtol=2**-6, atol=2**-9)
    assert (positive == want_positive).float().mean() > 0.98


def test_bfloat16_goes_in_and_out_bit_for_bit() -> None:
    x = torch.tensor([[0.0, -0.0, 1.0, 3.1415], [float("inf"), -1e38, 1e-38, 256.5]])
    x = x.bfloat16()
    (result,) = call_of(build(Reshuffle(), [x], "onnxruntime"))(x)
    assert torch.equal(result.view(torch.int16), Reshuffle()(x).view(torch.int16))


def test_float32_is_not_widened() -> None:
    assert call_of(shared("onnxruntime")).engine("onnxruntime")["build"]["flags"] == []


# tensorrt_rtx


def rtx(module: nn.Module, inputs: Any, **options: Any) -> tuple[Call, dict[str, Any]]:
    call = call_of(build(module, inputs, "tensorrt_rtx", **options))
    return call, call.engine("tensorrt_rtx")


@needs_tensorrt_rtx
def test_a_static_model_becomes_an_engine() -> None:
    call, engine = rtx(model(), [X])
    data = call.blobs[engine["data"]["blob"]].numpy().tobytes()
    assert len(data) > 10_000
    assert engine["build"]["profiles"] == [{"x": [[3, 8]] * 3}]
    assert engine["build"]["library"] == "tensorrt_rtx"
    assert engine["build"]["opset"] == 23
    assert engine["build"]["layers"] > 0
    assert "strongly_typed" in engine["build"]["flags"]
    assert engine["requires"]["device"] == ["cuda"]
    assert engine["requires"]["tensorrt_rtx"] == engine["build"]["version"]


@needs_tensorrt_rtx
def test_a_dynamic_model_becomes_an_engine_with_the_profile_of_its_range() -> None:
    batch = portrt.Input(min_shape=(1, 8), opt_shape=(4, 8), max_shape=(32, 8))
    call, engine = rtx(model(), [batch])
    assert engine["build"]["profiles"] == [{"x": [[1, 8], [4, 8], [32, 8]]}]
    size = call.entry["inputs"][0]["shape"][0]
    assert (size["min"], size["opt"], size["max"]) == (1, 4, 32)


class Sum(nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(a) + torch.sigmoid(b)


@needs_tensorrt_rtx
def test_a_size_that_follows_from_another_is_in_the_profile() -> None:
    n = Dim("n", min=2, max=10)
    _, engine = rtx(Sum(), [torch.ones(4, 3), torch.ones(4, 3)], dynamic_shapes=({0: n}, {0: n}))
    (profile,) = engine["build"]["profiles"]
    assert list(profile.values()) == [[[2, 3], [4, 3], [10, 3]]] * 2


@needs_tensorrt_rtx
def test_a_size_without_an_upper_bound_is_refused() -> None:
    with pytest.raises(BuildError, match="has no upper bound") as caught:
        rtx(model(), [X], dynamic_shapes=({0: Dim("batch", min=1)},))
    assert "input 'x'" in caught.value.happened


@needs_tensorrt_rtx
@pytest.mark.parametrize("spelled", ["8.9", "sm_89", 89, (8, 9)])
def test_target_compute_capabilities_are_built_for_and_stored(spelled: Any) -> None:
    _, engine = rtx(model(), [X], target_compute_capabilities=[spelled])
    assert engine["requires"]["compute_capabilities"] == ["8.9"]
    assert "compute_capabilities" in engine["build"]["flags"]


@needs_tensorrt_rtx
def test_the_builder_is_configured_by_the_options() -> None:
    options: dict[str, Any] = {"disable_tf32": True, "sparse_weights": True, "max_aux_streams": 0}
    options |= {"num_avg_timing_iters": 2, "tiling_optimization_level": "moderate"}
    _, engine = rtx(model(), [X], l2_limit_for_tiling=1 << 20, **options)
    wanted = ["no_tf32", "sparse_weights", "avg_timing_iterations=2", "max_aux_streams=0"]
    wanted += ["tiling_optimization_level=MODERATE", "l2_limit_for_tiling=1048576"]
    assert set(engine["build"]["flags"]) - set(rtx(model(), [X])[1]["build"]["flags"]) == {*wanted}
    precision = engine["build"]["precision"]
    assert arithmetic_of("tensorrt_rtx", engine["build"]) == precision
    assert arithmetic_of("tensorrt_rtx", {"precision": precision}) == f"{precision}+tf32"


def test_a_builder_without_an_attribute_refuses() -> None:
    library: Any = types.SimpleNamespace(
        BuilderFlag=types.SimpleNamespace(__members__={}), __version__="8.6"
    )
    config, flags = types.SimpleNamespace(max_aux_streams=-1), list[str]()
    job: dict[str, Any] = {"module": "tensorrt", "disable_tf32": True}
    worker.set_config(library, config, {**job, "config": {"max_aux_streams": 3}}, flags)
    assert (config.max_aux_streams, flags) == (3, ["no_tf32", "max_aux_streams=3"])
    for more in ({"sparse_weights": True}, {"config": {"l2_limit_for_tiling": 1}}):
        with pytest.raises(worker.Refused, match="this builder has no"):
            worker.set_config(library, config, {**job, **more}, [])


@needs_tensorrt_rtx
def test_an_unknown_target_is_refused_in_the_builders_words() -> None:
    with pytest.raises(BuildError, match=r"no engines for compute capability 9\.0") as caught:
        rtx(model(), [X], target_compute_capabilities=["9.0"])
    assert "this builder supports 7.5, 8.0, 8.6, 8.9, 12.0" in caught.value.happened


@needs_tensorrt_rtx
def test_what_the_builder_cannot_do_is_said_in_its_words() -> None:
    with pytest.raises(BuildError, match="the builder made no engine") as caught:
        rtx(model(), [X], workspace_size=1 << 10)
    assert "workspace" in caught.value.happened


class Attention(nn.Module):
    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return functional.scaled_dot_product_attention(q, k, v)


@needs_tensorrt_rtx
@pytest.mark.parametrize(("dtype", "opset"), [(torch.float32, 22), (torch.float16, 23)], ids=str)
def test_attention_without_a_fused_kernel_is_built_at_the_older_opset(
    dtype: torch.dtype, opset: int
) -> None:
    _, engine = rtx(Attention(), [torch.ones(1, 2, 16, 32, dtype=dtype) for _ in range(3)])
    assert engine["build"]["opset"] == opset


@pytest.fixture
def never_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker that builds engines does not end."""
    worker = tmp_path / "worker.py"
    worker.write_text("import time\ntime.sleep(36000)\n")
    monkeypatch.setattr(process, "WORKER", worker)


@needs_tensorrt_rtx
@pytest.mark.usefixtures("never_ready")
def test_a_worker_that_takes_too_long_is_told_by_compile() -> None:
    with pytest.raises(BuildError, match=r"was stopped after 0\.01 s"):
        rtx(model(), [X], build_timeout_s=0.01)


@needs_tensorrt_rtx
@pytest.mark.usefixtures("never_ready")
def test_another_backend_makes_up_for_a_failed_build() -> None:
    program = compiled("tensorrt_rtx", "onnxruntime", build_timeout_s=0.01)
    assert [item["backend"] for item in call_of(program).entry["engines"]] == ["onnxruntime"]


@needs_tensorrt_rtx
def test_the_library_takes_the_header_of_an_engine_for_one(tmp_path: Any) -> None:
    """Without a GPU it says what is wrong with a header, not whether the engine would run."""
    call, engine = rtx(model(), [X])
    path = tmp_path / "engine"
    path.write_bytes(call.blobs[engine["data"]["blob"]].numpy().tobytes())
    code = """
        import sys
        import tensorrt_rtx as trt

        class Quiet(trt.ILogger):
            def __init__(self):
                trt.ILogger.__init__(self)
            def log(self, severity, message):
                pass

        data = open(sys.argv[1], "rb").read()
        runtime = trt.Runtime(Quiet())
        malformed = int(trt.EngineInvalidityDiagnostics.MALFORMED_ENGINE)
        for header in (data, b"no engine" * 100):
            print(bool(runtime.get_engine_validity(header)[1] & malformed))
    """
    done = python(code, str(path))
    assert done.stdout.split() == ["False", "True"], done


@needs_tensorrt_rtx
def test_the_vendor_module_stays_out_of_this_process() -> None:
    code = """
        import sys, torch, portrt
        portrt.compile(
            torch.nn.Linear(8, 8).eval(), inputs=[torch.ones(2, 8)], min_block_size=1,
            engines="tensorrt_rtx", output_format="exported_program",
        )
        print([name for name in sys.modules if name.startswith("tensorrt")])
    """
    done = python(code)
    assert done.stdout.strip() == "[]", done.stderr


@needs_tensorrt_rtx
def test_a_builder_that_crashes_at_one_opset_is_asked_at_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from portrt.compiler.backends.tensorrt import build

    tried = []
    real = build.build_in_process

    def crash_at_first(*args: Any, **kwargs: Any) -> Any:
        tried.append(1)
        if len(tried) == 1:
            raise BuildError("was killed by SIGSEGV", "an engine", "wait")
        return real(*args, **kwargs)

    monkeypatch.setattr(build, "build_in_process", crash_at_first)
    _, engine = rtx(Attention(), [torch.ones(1, 2, 16, 32).half() for _ in range(3)])
    assert engine["build"]["opset"] == 22
    assert len(tried) == 2
