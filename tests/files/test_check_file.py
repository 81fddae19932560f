"""Will it run there? From the file alone: rules, targets, and files of any size."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import python, shared

from portrt import files
from portrt.engines import registry
from portrt.errors import LoadError, SettingsError
from portrt.files import Target
from portrt.format.archive import Archive, engine_calls
from portrt.format.archive_writer import ArchiveWriter
from portrt.format.manifest import Blob, EngineSpec
from portrt.runtime import report
from portrt.targets import this_machine
from portrt.targets.machine import Machine
from portrt.targets.requirements import check_requirements

RTX = {"device": ["cuda"], "compute_capabilities": ["8.6", "8.9"], "tensorrt_rtx": "1.7.1.116"}
ORT = {"device": ["cpu"], "onnxruntime": "1.23"}
GPU = Machine(os="linux", arch="x86_64", compute_capability="8.9")


@pytest.fixture(scope="session")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One block with an engine for CUDA tensors and one for the CPU; not to be changed."""
    path = tmp_path_factory.mktemp("check") / "both.pt2"
    torch.export.save(shared("tensorrt_rtx", "onnxruntime"), path)
    return path


@pytest.mark.parametrize(
    ("backend", "requires", "facts", "device", "reason"),
    [
        ("tensorrt_rtx", RTX, GPU, "cuda", ""),
        ("tensorrt_rtx", RTX, GPU, "cpu", "it takes cuda tensors, the inputs are on cpu"),
        ("tensorrt_rtx", RTX, Machine(), "cuda", "there is no NVIDIA GPU"),
        (
            *("tensorrt_rtx", RTX, Machine(compute_capability="7.5"), "cuda"),
            "built for compute capability 8.6, 8.9, the GPU has 7.5",
        ),
        ("onnxruntime", ORT, GPU, "cpu", ""),
        ("onnxruntime", {"device": ["cpu"]}, GPU, "cpu", ""),
        ("onnxruntime", ORT, GPU, "cuda", "it takes cpu tensors, the inputs are on cuda"),
        ("onnxruntime", {**ORT, "os": ["windows"]}, GPU, "cpu", "built for windows, not linux"),
        ("onnxruntime", {**ORT, "arch": ["aarch64"]}, GPU, "cpu", "built for aarch64, not x86_64"),
        ("onnxruntime", {**ORT, "os": ["windows"]}, Machine(), "cpu", ""),
        ("of_tomorrow", ORT, GPU, "cpu", "this version of portrt does not know it"),
    ],
)
def test_the_rule(
    backend: str, requires: dict[str, Any], facts: Machine, device: str, reason: str
) -> None:
    verdict = check_requirements(backend, requires, facts, device)
    assert verdict.ok == (not reason)
    assert verdict.reason == reason


@pytest.mark.parametrize(
    ("backend", "version", "fits"),
    [
        ("tensorrt_rtx", "1.7", True),
        ("tensorrt_rtx", "1.7.1", True),
        ("tensorrt_rtx", "1.7.1.999", True),
        ("tensorrt_rtx", "1.7.2", False),
        ("tensorrt_rtx", "1.8", False),
        ("tensorrt_rtx", "2", False),
        ("tensorrt_rtx", "", False),
        ("onnxruntime", "1.23", True),
        ("onnxruntime", "1.23.0", True),
        ("onnxruntime", "1.32.dev20", True),
        ("onnxruntime", "2", True),
        ("onnxruntime", "1.22.9", False),
        ("onnxruntime", "", False),
    ],
)
def test_versions(backend: str, version: str, fits: bool) -> None:
    """TensorRT-RTX runs engines of its own release alone; ONNX Runtime reads older models."""
    requires, device = (RTX, "cuda") if backend == "tensorrt_rtx" else (ORT, "cpu")
    facts = Machine(compute_capability="8.9", versions={backend: version})
    verdict = check_requirements(backend, requires, facts, device)
    assert verdict.ok == fits
    if not fits:
        assert backend in verdict.reason
        assert verdict.remedy


@pytest.mark.parametrize("text", ["os=linux,arch=x86_64,sm=89,tensorrt_rtx=1.7", "sm=8.9", ""])
def test_targets_are_read_and_written(text: str) -> None:
    target = Target.parse(text)
    assert Target.parse(str(target) if text else "") == target
    if text:
        assert target.compute_capability == "8.9"


def test_other_spellings_of_a_target() -> None:
    target = Target.parse("os=macOS, arch=AMD64, compute_capability=sm_120,onnxruntime=none")
    assert target == Target("darwin", "x86_64", "12.0", None, {"onnxruntime": "none"})


@pytest.mark.parametrize(
    "text",
    ["gpu=4090", "sm=", "sm", "sm=big", "os=dos", "device=tpu", "sm=89,sm=86", "tensorrt_rtx=new"],
)
def test_bad_targets(text: str) -> None:
    with pytest.raises(SettingsError, match="is not understood"):
        Target.parse(text)


@pytest.mark.parametrize(
    ("target", "outcome", "runs_as", "device"),
    [
        ("sm=89", "engine", "tensorrt_rtx", "cuda"),
        ("sm=89,device=cpu", "engine", "onnxruntime", "cpu"),
        ("sm=75", "engine", "onnxruntime", "cpu"),
        ("sm=75,device=cuda", "fallback", "eager", "cuda"),
        ("sm=89,tensorrt_rtx=1.8,device=cuda", "fallback", "eager", "cuda"),
        ("os=linux", "engine", "onnxruntime", "cpu"),
        ("onnxruntime=none", "fallback", "eager", "cpu"),
    ],
)
def test_check_for_a_target(
    file: Path, target: str, outcome: str, runs_as: str, device: str
) -> None:
    found = files.check(file, target)
    assert (found.outcome, found.device) == (outcome, device)
    (block,) = found.blocks
    assert (block.outcome, block.runs_as) == (outcome, runs_as)
    assert [engine.backend for engine in block.engines] == ["tensorrt_rtx", "onnxruntime"]
    assert all(engine.verdict.ok or engine.verdict.reason for engine in block.engines)


def test_check_without_source(file: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.pt2"
    files.strip(file, source=True, output=path)
    found = files.check(path, "device=cuda")
    assert found.outcome == "cannot"
    assert found.blocks[0].source.reason == "the file has no source"
    assert files.check(path).outcome == "engine"


def test_check_agrees_with_the_runtime_here(file: Path) -> None:
    """Against what the backends say with their libraries imported."""
    found = files.check(file, None)
    (block,) = found.blocks
    (told,) = report(shared("tensorrt_rtx", "onnxruntime"), found.device)
    assert block.runs_as == told.runs_as
    assert [e.verdict.ok for e in block.engines] == [verdict.ok for _, verdict in told.verdicts]
    assert found.target.startswith("this machine (os=")


def test_check_of_a_program_that_calls_no_engine(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 2)
    torch.export.save(torch.export.export(model, (torch.ones(1, 2),)), tmp_path / "a.pt2")
    found = files.check(tmp_path / "a.pt2")
    assert (found.outcome, found.blocks) == ("fallback", ())
    with pytest.raises(LoadError):
        files.check(tmp_path / "nothing.pt2")


def test_facts_of_this_machine_agree_with_torch() -> None:
    facts = this_machine.this_machine()
    assert facts.os == platform.system().lower()
    usable = torch.cuda.is_available()
    assert (facts.compute_capability is not None) == usable
    if usable:
        major, minor = torch.cuda.get_device_capability()
        assert facts.compute_capability == f"{major}.{minor}"
    else:
        assert facts.gpu_reason
    assert this_machine._torch_is_without_cuda() == (torch.version.cuda is None)


def test_the_backend_refuses_another_release(monkeypatch: pytest.MonkeyPatch) -> None:
    """The backend on this machine follows the same rule, with what torch knows of the GPU."""
    backend = registry.runtime("tensorrt_rtx")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 9))
    monkeypatch.setattr("portrt.engines.tensorrt.runtime._rtx_version", lambda: "1.6.0.2")
    if backend.can_run("cuda"):
        spec = EngineSpec(backend="tensorrt_rtx", data=Blob(0, 0, "0" * 64), requires=RTX)
        verdict = backend.accepts(spec, torch.device("cuda"))
        assert "1.7.1.116, and 1.6.0.2 is installed" in verdict.reason


def test_a_file_of_5_gb_is_judged_at_once_and_without_torch(file: Path, tmp_path: Path) -> None:
    """Little of it is read. The engine is made 5 GB long; on disk these are no bytes at all."""
    path = tmp_path / "big.pt2"
    archive = Archive(file)
    blob = engine_calls(archive)[0].blobs[2]
    with path.open("wb") as target, file.open("rb") as source:
        writer = ArchiveWriter(target, archive.root)
        for name, record in archive.records.items():
            writer.copy(name, source, record)
            if record == blob:
                target.flush()
                target.seek(5 << 30, 1)
                writer._position += 5 << 30
        writer.close()
    assert path.stat().st_size > 5 << 30
    code = """
        import json, sys
        from portrt.files import check
        from portrt.files.inspect_file import inspect
        import portrt
        sys.path.insert(0, sys.argv[2])
        from effort import reads_of
        with reads_of(sys.argv[1]) as reads:
            portrt.inspect(sys.argv[1])
            for target in (None, "sm=89", "os=windows"):
                portrt.files.check(sys.argv[1], target)
        heavy = {"torch", "numpy", "onnx", "onnxruntime", "tensorrt_rtx"} & set(sys.modules)
        assert not heavy, heavy
        print(json.dumps([reads.opened, reads.uncounted, reads.count]))
    """
    done = python(code, str(path), str(Path(__file__).parents[1]))
    assert done.returncode == 0, done.stderr
    opened, uncounted, count = json.loads(done.stdout)
    assert opened >= 4
    assert uncounted == 0
    assert count < 1 << 20


@pytest.mark.parametrize("capability", ["9.0", "10.0", "10.3"])
def test_no_engine_of_tensorrt_rtx_is_advised_for_a_gpu_that_it_has_none_for(
    capability: str,
) -> None:
    requires = {"device": ["cuda"], "compute_capabilities": ["8.9"]}
    verdict = check_requirements(
        "tensorrt_rtx", requires, Machine(compute_capability=capability), "cuda"
    )
    assert "--engine tensorrt:" in verdict.remedy
    assert "--target" not in verdict.remedy
    older = check_requirements("tensorrt_rtx", requires, Machine(compute_capability="7.5"), "cuda")
    assert "--target 7.5" in older.remedy
