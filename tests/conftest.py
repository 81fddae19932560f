"""The fixtures that all tests share."""

from __future__ import annotations

import fcntl
import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from harness import Compiled
from torch.export import ExportedProgram

import portrt
from portrt.cpp.build import Built, build
from portrt.cpp.compiler import compiler
from portrt.errors import BuildError


def pytest_configure() -> None:
    """No test takes from the user's cache, or writes to it, nor does a process that one starts.

    Where several processes test side by side, each has its share of the cores: threads that wait
    for each other while the other process has the core cost more than they bring.
    """
    os.environ["PORTRT_CACHE_DIR"] = "off"
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    threads = max(1, (os.cpu_count() or 1) // workers)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    torch.set_num_threads(threads)


def pytest_collection_finish() -> None:
    """Keep what all imports made out of every collection to come, and collect less often.

    Graphs are many small objects: at Python's own thresholds collections take 5 % of a compile.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@pytest.fixture(scope="session")
def cpp_runtime() -> Iterator[Built]:
    """The C++ runtime: built once for the same sources, and what runtime="cpp" finds."""
    try:
        compiler()
    except BuildError as err:
        pytest.skip(err.happened)
    folder = Path(__file__).parents[1] / "build"
    folder.mkdir(exist_ok=True)
    with (folder / "cpp-runtime.lock").open("w") as file:  # a process beside this one waits
        fcntl.flock(file, fcntl.LOCK_EX)
        made = build(folder / "cpp-runtime")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PORTRT_CPP_LIBRARY", str(made.library))
        yield made


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """Programs of the models of tests/models.py."""
    return Compiled(tmp_path_factory.mktemp("programs"))


def mlp() -> torch.nn.Module:
    torch.manual_seed(0)
    layers = [torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4)]
    return torch.nn.Sequential(*layers).eval()


@pytest.fixture(scope="session")
def model() -> torch.nn.Module:
    return mlp()


@pytest.fixture(scope="session")
def program(model: torch.nn.Module) -> ExportedProgram:
    batch = torch.export.Dim("batch", min=1, max=64)
    compiled = portrt.compile(
        model,
        inputs=[torch.randn(3, 8)],
        dynamic_shapes=({0: batch},),
        engines="onnxruntime",
        output_format="exported_program",
    )
    assert isinstance(compiled, ExportedProgram)
    return compiled


@pytest.fixture(scope="session")
def saved(program: ExportedProgram, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of it; not to be changed."""
    path = tmp_path_factory.mktemp("saved") / "model.pt2"
    portrt.save(program, path)
    return path
