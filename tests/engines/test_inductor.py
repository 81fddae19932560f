"""AOTInductor engines: real packages, of two compilations for all tests here."""

from __future__ import annotations

import dataclasses
import gc
import os
import subprocess
import tempfile
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import call_of
from torch import nn
from torch.export import Dim, ExportedProgram

import portrt
from portrt import files, runtime
from portrt.compiler.backends.inductor.build import InductorBuilder
from portrt.compiler.backends.inductor.cxx import cxx
from portrt.compiler.backends.registry import builder
from portrt.compiler.building.tasks import tasks_for
from portrt.compiler.inputs import device_of
from portrt.compiler.options.settings import Settings
from portrt.engines.inductor import first_load
from portrt.errors import BackendUnavailableError, BuildError, NoUsableEngineError
from portrt.format.archive import Archive, engine_calls
from portrt.format.manifest import EngineSpec
from portrt.format.memory_map import _regions
from portrt.runtime import rebuilding, trust
from portrt.runtime.policy import effective
from portrt.runtime.select import FallbackWarning
from portrt.targets.cpu_features import cpu_features
from portrt.verdict import Verdict
from portrt.weights import WeightsImage

BATCHES = (1, 2, 5, 64)


class Model(nn.Module):
    """Small and large weights, an operator that ONNX does not have, and outputs that are views."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 32)
        self.second = nn.Linear(32, 4)
        self.table = nn.Embedding(10, 4)
        self.register_buffer("shift", torch.arange(4.0))

    def forward(self, x: torch.Tensor, i: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = torch.special.bessel_j0(self.second(torch.relu(self.first(x)))) + self.table(i)
        views = x[:, 2:6].t() * 1, x.reshape(-1, 2, 4)[:, 0]
        return torch.softmax(y, -1) + self.shift, *views, x * 0, x.var(1, correction=2)


def model() -> Model:
    torch.manual_seed(0)
    return Model().eval()


def inputs(batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(batch)
    x = torch.randn(batch, 8, generator=generator)
    return x, torch.randint(0, 10, (batch,), generator=generator)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("inductor-cache")


def compiled(cache: Path | str, *engines: str, **options: Any) -> ExportedProgram:
    batch = Dim("batch", min=1, max=64)
    program = portrt.compile(
        model(),
        inputs=inputs(3),
        dynamic_shapes=({0: batch}, {0: batch}),
        engines=engines,
        min_block_size=options.pop("min_block_size", 1),
        cache_dir=cache,
        output_format="exported_program",
        **options,
    )
    assert isinstance(program, ExportedProgram)
    return program


@pytest.fixture(scope="module")
def program(cache: Path) -> ExportedProgram:
    if cxx() is None:
        pytest.fail("there is no C++ compiler: install g++, which inductor engines are built with")
    return compiled(cache, "inductor", "onnxruntime", require_engines=True)


@pytest.fixture(scope="module")
def file(program: ExportedProgram, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inductor") / "model.pt2"
    portrt.save(program, path)
    return path


def entry(program: ExportedProgram) -> dict[str, Any]:
    return call_of(program).engine("inductor")


def assert_close(got: Any, want: Any) -> None:
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other.contiguous(), rtol=1e-5, atol=1e-6)


def test_it_has_the_whole_block_without_onnx(program: ExportedProgram) -> None:
    call = call_of(program)
    assert entry(program).get("parts") is None
    assert call.engine("onnxruntime")["parts"]["nodes_in_engines"] < call.entry["node_count"]
    assert "opset" not in entry(program)["build"]


def test_the_check_compares_it_with_the_model(program: ExportedProgram) -> None:
    rows = entry(program)["check"]["outputs"]
    assert [row["ok"] for row in rows] == [True] * 5


def test_weights_are_in_the_image_alone(program: ExportedProgram) -> None:
    found = set(entry(program)["weights"])
    assert found == set(model().state_dict())


def test_numbers_at_each_size(program: ExportedProgram) -> None:
    module = program.module()
    with runtime.policy(engines="inductor", fallback="error"):
        for batch in BATCHES:
            assert_close(module(*inputs(batch)), model()(*inputs(batch)))


def test_nan_and_infinities_times_zero_are_nan(program: ExportedProgram) -> None:
    x, i = inputs(3)
    x[0, 0], x[1, 1], x[2, 2] = float("nan"), float("inf"), -float("inf")
    with runtime.policy(engines="inductor", fallback="error"):
        found = program.module()(x, i)[3]
    torch.testing.assert_close(found, x * 0, rtol=0, atol=0, equal_nan=True)


def test_inputs_of_any_strides_are_not_written(program: ExportedProgram) -> None:
    x, i = inputs(6)
    strided = torch.empty(8, 12).t()[::2]
    strided.copy_(x)
    expanded = x[:1].expand(6, 8)
    offset = torch.zeros(1 + x.numel())[1:].view(6, 8).copy_(x)
    module = program.module()
    with runtime.policy(engines="inductor", fallback="error"):
        for given in (strided, expanded, offset):
            before = given.clone()
            results = module(given, i)
            assert_close(results, model()(before, i))
            assert torch.equal(given, before)
            for result in results:
                result.add_(1)  # what it returns is not the input
            assert torch.equal(given, before)


def test_outputs_share_no_memory(program: ExportedProgram) -> None:
    """One is a view of an input in the model; and a call leaves the outputs of another alone."""
    module = program.module()
    with runtime.policy(engines="inductor", fallback="error"):
        first = module(*inputs(4))
        kept = [result.clone() for result in first]
        second = module(*inputs(5))
    storages = {item.untyped_storage().data_ptr() for item in (*first, *second)}
    assert len(storages) == len(first) + len(second)
    assert all(torch.equal(one, other) for one, other in zip(first, kept, strict=True))
    assert all(result.is_contiguous() for result in first)


def test_weights_are_used_where_they_lie(program: ExportedProgram) -> None:
    """A weight that is written in the image is seen by the next call."""
    call = call_of(program)
    image = WeightsImage(call.blobs[call.entry["weights"]["blob"]])
    with runtime.policy(engines="inductor", fallback="error"):
        before = call(*inputs(3))
        for name in call.engine("inductor")["weights"]:
            image.tensor(name).zero_()
        after = call(*inputs(3))
        again = call(*inputs(3))
    assert not all(map(torch.equal, before, after))
    assert all(map(torch.equal, after, again))


def test_the_file_is_let_go_with_the_program(file: Path) -> None:
    """The loader of packages never frees a constant that it was given."""
    before = set(_regions)
    for _ in range(3):
        module: Any = portrt.load(file, output_format="module", trust="host-code")
        module(*inputs(2))
        assert len(set(_regions) - before) == 1
        del module
        gc.collect()
        assert set(_regions) <= before


def test_several_threads_call_one_session(program: ExportedProgram) -> None:
    module, found = program.module(), {}
    wanted = {batch: model()(*inputs(batch)) for batch in range(1, 9)}

    def run(batch: int) -> None:
        for _ in range(20):
            found[batch] = module(*inputs(batch))

    with runtime.policy(engines="inductor", fallback="error"):
        module(*inputs(2))  # contextvars are not passed to threads
    threads = [threading.Thread(target=run, args=(batch,)) for batch in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for batch, results in wanted.items():
        assert_close(found[batch], results)


def test_its_files_are_removed_when_it_is_open(file: Path) -> None:
    before = set(os.listdir(tempfile.gettempdir()))
    module = portrt.load(file, trust="host-code", engines="inductor", output_format="module")
    assert_close(module(*inputs(3)), model()(*inputs(3)))
    new = set(os.listdir(tempfile.gettempdir())) - before
    assert not [name for name in new if name.startswith(("portrt-inductor", "aotinductor"))]


def test_numbers_below_the_normal_ones_stay(program: ExportedProgram) -> None:
    """Loading machine code that was linked with -ffast-math would set them to 0, in the process."""
    program.module()(*inputs(3))
    tiny = torch.tensor([1e-40])
    assert float(tiny * 1) > 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_a_forked_child_calls_it(file: Path) -> None:
    module = portrt.load(file, trust="host-code", engines="inductor", output_format="module")
    wanted = model()(*inputs(3))
    assert_close(module(*inputs(3)), wanted)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            assert_close(module(*inputs(3)), wanted)
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert_close(module(*inputs(3)), wanted)


def test_plain_torch_loads_the_file(file: Path) -> None:
    module = torch.export.load(file).module()
    with runtime.policy(engines="inductor", fallback="error", trust="host-code"):
        assert_close(module(*inputs(7)), model()(*inputs(7)))


def spec_of(file: Path) -> EngineSpec:
    (call,) = engine_calls(Archive(str(file)))
    return next(item for item in call.manifest.engines if item.backend == "inductor")


def test_what_it_requires(file: Path) -> None:
    requires = spec_of(file).requires
    assert requires["torch"] == str(torch.__version__).partition("+")[0]
    assert set(requires["cpu_features"]) == set(cpu_features() or ())
    assert requires["device"] == ["cpu"]
    assert requires["host_code"] is True


@pytest.mark.parametrize(
    ("edit", "code", "words"),
    [
        ({"torch": "2.9.1"}, "library_version", "built by torch 2.9.1"),
        ({"os": ["windows"]}, "wrong_platform", "built for windows"),
        ({"arch": ["riscv64"]}, "wrong_platform", "built for riscv64"),
        ({"cpu_features": ["avx10_2"]}, "wrong_platform", "avx10_2, which this one lacks"),
        ({"device": ["cuda"]}, "wrong_device", "it takes cuda tensors"),
        ({}, "untrusted_code", "trust='host-code'"),
    ],
)
def test_another_machine_does_not_open_it(
    program: ExportedProgram, edit: dict[str, Any], code: str, words: str
) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["engines"] = [
            item for item in manifest["engines"] if item["backend"] == "inductor"
        ]
        manifest["engines"][0]["requires"] |= edit
        manifest["blob_count"] = 3

    call = call_of(program).edited(change)
    call = dataclasses.replace(call, blobs=call.blobs[:3])
    trust = () if code == "untrusted_code" else "host-code"
    with (
        runtime.policy(fallback="error", trust=trust),
        pytest.raises(NoUsableEngineError, match=words),
    ):
        call(*inputs(3))


def test_a_file_is_judged_without_opening_it(file: Path) -> None:
    release = str(torch.__version__).partition("+")[0]
    able = f"os=linux,arch=x86_64,torch={release}"
    for target, given, runs in (
        (able, "host-code", "inductor"),
        (able, None, "onnxruntime"),
        ("os=linux,arch=x86_64,torch=2.9.1", "host-code", "onnxruntime"),
        (f"{able},cpu=avx2+fma", "host-code", "onnxruntime"),
    ):
        if "x86_64" in spec_of(file).requires["arch"]:
            assert files.check(file, target, trust=given).blocks[0].runs_as == runs, target


def test_a_damaged_package_is_an_error(program: ExportedProgram) -> None:
    call = call_of(program)
    data = call.engine("inductor")["data"]["blob"]
    damaged = call.blobs[data].clone()
    damaged[:] = 0
    with (
        runtime.policy(engines="inductor", fallback="error", trust="host-code"),
        pytest.raises(NoUsableEngineError, match="it could not be opened"),
    ):
        call.resealed(data, damaged)(*inputs(3))


def test_a_package_that_ends_the_process_is_an_error(
    program: ExportedProgram, tmp_path: Path
) -> None:
    """It is loaded in a child process first."""
    library = tmp_path / "it.wrapper.so"
    code = "__attribute__((constructor)) static void end() { __builtin_trap(); }"
    (tmp_path / "it.cpp").write_text(code)
    compiler = [str(cxx()), "-shared", "-fPIC", "-o", str(library), str(tmp_path / "it.cpp")]
    subprocess.run(compiler, check=True)
    with zipfile.ZipFile(tmp_path / "package.pt2", "w") as package:
        folder = "package/data/aotinductor/model"
        package.write(library, f"{folder}/it.wrapper.so")
        package.writestr(f"{folder}/it.wrapper_metadata.json", '{"AOTI_DEVICE_KEY": "cpu"}')
    data = torch.frombuffer(bytearray((tmp_path / "package.pt2").read_bytes()), dtype=torch.uint8)
    call = call_of(program)
    index = call.engine("inductor")["data"]["blob"]
    with (
        runtime.policy(engines="inductor", fallback="error", trust="host-code"),
        pytest.raises(NoUsableEngineError, match="loaded it first was killed by SIG"),
    ):
        call.resealed(index, data)(*inputs(3))


def test_a_package_of_another_machine_is_loaded_in_a_child_process_once(
    file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started: list[Any] = []
    real = first_load._fault

    def counted(job: Any, workdir: Path) -> str:
        started.append(job)
        return real(job, workdir)

    monkeypatch.setattr(first_load, "_fault", counted)
    monkeypatch.setenv("PORTRT_CACHE_DIR", str(tmp_path))
    for _ in range(2):  # the second time in the cache alone
        monkeypatch.setattr(first_load, "_known", set())
        module = portrt.load(file, trust="host-code", engines="inductor", output_format="module")
        assert_close(module(*inputs(3)), model()(*inputs(3)))
    assert len(started) == 1


def test_an_engine_that_is_not_trusted_is_built_again_from_the_source(
    file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The preferred engine of the file is built, and not one that is built by default."""
    alone = tmp_path / "alone.pt2"
    files.strip(file, output=alone, engine="onnxruntime")
    monkeypatch.setenv("PORTRT_CACHE_DIR", str(cache))  # which has it
    program = portrt.load(alone, rebuild="missing", fallback="error")
    monkeypatch.setattr(trust, "_trusted", set())
    (found,) = runtime.report(program)
    assert [verdict.code for _, verdict in found.verdicts] == ["untrusted_code", "ok"]
    assert found.runs_as == "inductor"
    assert_close(program.module()(*inputs(3)), model()(*inputs(3)))


@pytest.fixture
def unfit(file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A file whose only engine does not fit here; what `compiled` built is in the cache."""
    path = tmp_path / "unfit.pt2"
    files.strip(file, output=path, engine="onnxruntime")
    monkeypatch.setenv("PORTRT_CACHE_DIR", str(cache))
    monkeypatch.setattr(trust, "_trusted", set())
    return path


def test_the_fallback_compiles_the_source(unfit: Path) -> None:
    program = portrt.load(unfit, fallback="inductor")
    (found,) = runtime.report(program)
    assert found.runs_as == "inductor"
    assert [verdict.code for _, verdict in found.verdicts] == ["untrusted_code", "ok"]
    module = program.module()
    with pytest.warns(FallbackWarning, match=r"compiled here(.|\n)*trust='host-code'"):
        results = module(*inputs(3))
    assert_close(results, model()(*inputs(3)))
    for batch in BATCHES:
        assert_close(module(*inputs(batch)), model()(*inputs(batch)))


def test_the_fallback_is_kept_in_a_file_that_others_read(unfit: Path, tmp_path: Path) -> None:
    portrt.save(portrt.load(unfit, fallback="inductor", background=True), tmp_path / "again.pt2")
    (call,) = engine_calls(Archive(str(tmp_path / "again.pt2")))
    assert call.manifest.policy["fallback"] == "eager"  # what an older reader does
    stored = effective(call.manifest.policy, None)
    assert (stored.fallback, stored.background) == ("inductor", True)
    portrt.save(portrt.load(tmp_path / "again.pt2", fallback="eager"), tmp_path / "eager.pt2")
    (call,) = engine_calls(Archive(str(tmp_path / "eager.pt2")))
    assert effective(call.manifest.policy, None).fallback == "eager"


def test_the_fallback_compiles_beside_calls(unfit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin, real = threading.Event(), rebuilding.rebuilt
    made: list[Any] = []

    def wait(*args: Any) -> Any:
        assert begin.wait(600)
        made.append(real(*args))
        return made[-1]

    monkeypatch.setattr(rebuilding, "rebuilt", wait)
    module = portrt.load(unfit, fallback="inductor", background=True).module()
    with pytest.warns(FallbackWarning, match="Until an inductor engine is compiled"):
        results = module(*inputs(3))
    assert_close(results, model()(*inputs(3)))
    assert not made
    (thread,) = [item for item in threading.enumerate() if item.name == "portrt-compile"]
    begin.set()
    thread.join()
    (selection,) = made
    calls: list[Any] = []
    run = selection.session.run
    monkeypatch.setattr(selection.session, "run", lambda *args: calls.append(args) or run(*args))
    assert_close(module(*inputs(5)), model()(*inputs(5)))
    assert len(calls) == 1


def test_a_fallback_that_cannot_compile_runs_in_pytorch(
    unfit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "/nowhere/g++")
    for background in (False, True):
        program = portrt.load(unfit, fallback="inductor", background=background)
        assert runtime.report(program)[0].runs_as == "eager"
        with pytest.warns(FallbackWarning, match=r"runs in PyTorch(.|\n)*/nowhere/g"):
            results = program.module()(*inputs(3))
        assert_close(results, model()(*inputs(3)))


def test_engines_for_cuda_tensors_where_no_tensorrt_builds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a machine that seems to have a GPU."""
    for name in ("tensorrt", "tensorrt_rtx"):
        no = Verdict.no("library_missing", "it is not installed", "install it")
        monkeypatch.setattr(type(builder(name)), "can_build", lambda *_, no=no: no)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [task.builder.name for task in tasks_for(Settings(), "cuda")] == ["inductor"]
    assert [task.builder.name for task in tasks_for(Settings(), "cpu")] == ["onnxruntime"]
    named = Settings(engines="onnxruntime")
    assert [task.builder.name for task in tasks_for(named, "cuda")] == ["onnxruntime"]
    monkeypatch.setenv("CXX", "/nowhere/g++")
    assert [task.builder.name for task in tasks_for(Settings(), "cuda")] == ["onnxruntime"]


def test_the_device_of_a_compilation_is_that_of_its_inputs() -> None:
    on_gpu = portrt.Input((2, 3), device="cuda")
    assert device_of(model(), [torch.ones(2), {"x": [on_gpu]}], None) == "cuda"
    assert device_of(model(), None, {"x": on_gpu}) == "cuda"
    assert device_of(model(), [torch.ones(2), 3], None) == "cpu"
    exported = torch.export.export(model(), inputs(3))
    assert device_of(exported, None, None) == "cpu"


def test_an_integer_division_that_would_end_the_process_stays_in_pytorch() -> None:
    module = torch.export.export(nn.Identity(), (torch.ones(2),)).graph_module
    graph = module.graph
    x = next(iter(graph.nodes))
    x.meta["val"] = torch.ones(2, dtype=torch.int64)
    for target, args in (
        (torch.ops.aten.div.Tensor_mode, (x, x)),
        (torch.ops.aten.remainder.Tensor, (x, x)),
    ):
        with graph.inserting_after(x):
            node = graph.call_function(target, args)
        node.meta["val"] = x.meta["val"]
        assert InductorBuilder().supports(node).code == "wrong_results"
        node.args = (x, 3)
        assert InductorBuilder().supports(node)


def test_constants_that_do_not_fit_are_an_error(program: ExportedProgram) -> None:
    def swap(manifest: dict[str, Any]) -> None:
        engine = next(item for item in manifest["engines"] if item["backend"] == "inductor")
        engine["weights"] = engine["weights"][:-1]

    with (
        runtime.policy(engines="inductor", fallback="error", trust="host-code"),
        pytest.raises(portrt.PortrtError, match="constants"),
    ):
        call_of(program).edited(swap)(*inputs(3))


def test_without_a_compiler_it_is_not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/nowhere/g++")
    verdict = InductorBuilder().can_build()
    assert verdict.code == "library_missing"
    assert "g++" in verdict.remedy
    with pytest.raises(BackendUnavailableError, match="/nowhere/g"):
        portrt.compile(model(), inputs=inputs(3), engines="inductor")


def test_a_build_that_takes_too_long_is_stopped() -> None:
    with pytest.raises(BuildError, match=r"was stopped after 0\.01 s"):
        compiled("off", "inductor", build_timeout_s=0.01, require_engines=True, check="error")


def test_frozen_weights_are_in_the_engine(cache: Path) -> None:
    torch.manual_seed(0)
    linear, x = nn.Linear(40, 30).eval(), torch.randn(2, 40)
    options: Any = {"engines": "inductor", "freezing": True, "require_engines": True}
    program = portrt.compile(
        linear,
        inputs=[x],
        min_block_size=1,
        check_budget=0,
        cache_dir=cache,
        output_format="exported_program",
        **options,
    )
    own = entry(program)
    assert own["weights"] == []
    assert own["build"]["flags"] == ["freezing"]
    with runtime.policy(engines="inductor", fallback="error"):
        torch.testing.assert_close(program.module()(x), linear(x))


def test_an_equal_block_is_not_built_again(
    program: ExportedProgram, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(*_: object) -> None:
        raise AssertionError("it is built again")

    monkeypatch.setattr(InductorBuilder, "build", build)
    again = compiled(cache, "inductor", min_block_size=2)
    assert entry(again)["data"]["sha256"] == entry(program)["data"]["sha256"]
