"""TensorRT engines built here, by a builder in another Python, and run here.

Needs an interpreter that has `tensorrt` (PORTRT_TEST_BUILDER names it; TensorRT 8.6 was tried) and
a TensorRT runtime in this one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from plans import BUILDER, INPUTS, MODELS, fresh
from programs import in_threads

import portrt
from portrt.compiler.backends.tensorrt.process import build_in_process
from portrt.compiler.backends.tensorrt.tensorrt import builder_version
from portrt.engines.registry import runtime
from portrt.errors import EngineError, NoUsableEngineError
from portrt.format.plan_header import read_plan_header
from portrt.targets.this_machine import this_machine
from portrt.targets.versions import same_release

PYTHON = os.environ.get(BUILDER)
ABLE = runtime("tensorrt").can_run("cuda")

pytestmark = [
    pytest.mark.skipif(PYTHON is None, reason=f"{BUILDER} names no Python with tensorrt"),
    pytest.mark.skipif(not ABLE, reason=f"tensorrt cannot run here: {ABLE.reason}"),
]

TOLERANCE = {torch.float32: 2e-3, torch.float16: 1e-2}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PORTRT_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    a, b = found.double().cpu(), wanted.double().cpu()
    return float((a - b).norm() / b.norm())


def made(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return MODELS[name]().eval()


def shapes_of(name: str) -> tuple[Any, ...]:
    batch, length = torch.export.Dim("batch", max=32), torch.export.Dim("length", max=128)
    return tuple({0: batch, 1: length} if name == "encoder" else {0: batch} for _ in INPUTS[name])


def engine(**options: Any) -> dict[str, Any]:
    return {
        "backend": "tensorrt",
        "builder_python": PYTHON,
        "version_compatible": True,
        "exclude_lean_runtime": True,
        **options,
    }


def to_gpu(inputs: Sequence[torch.Tensor], dtype: torch.dtype) -> list[torch.Tensor]:
    return [x.cuda().to(dtype if x.is_floating_point() else x.dtype) for x in inputs]


LOAD = """
import sys, torch, portrt
path = sys.argv[1]
module = portrt.load(path, trust="host-code", fallback="error", output_format="module")
torch.save(module(*torch.load(path + ".in")).cpu(), path + ".out")
"""


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", INPUTS)
def test_compiled_saved_and_loaded_in_a_new_process(
    name: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    """The founding call, on a GPU; eager float32 on the CPU is the oracle."""
    program = portrt.compile(
        made(name).cuda().to(dtype),
        inputs=to_gpu(fresh(name, 4, 0), dtype),
        dynamic_shapes=shapes_of(name),
        engines=[engine()],
        use_python_runtime=True,
        output_format="exported_program",
    )
    (report,) = portrt.runtime.report(program, "cuda")
    assert report.runs_as == "tensorrt"
    path = tmp_path / "program.pt2"
    torch.export.save(program, path)
    inputs = fresh(name, 7, 1)
    torch.save(to_gpu(inputs, dtype), f"{path}.in")
    subprocess.run([sys.executable, "-c", LOAD, path], check=True)
    with torch.no_grad():
        wanted = made(name)(*inputs)
    assert relative(torch.load(f"{path}.out"), wanted) <= TOLERANCE[dtype]


def test_a_second_build_takes_the_timing_cache(tmp_path: Path) -> None:
    times = []
    for width in (64, 64):
        model = torch.nn.Sequential(torch.nn.Linear(256, width), torch.nn.ReLU()).eval().cuda()
        portrt.compile(
            model,
            inputs=[torch.ones(2, 256, device="cuda")],
            engines=[engine()],
            min_block_size=1,
            cache_dir=tmp_path,
        )
        (cache,) = (tmp_path / "timing").iterdir()
        times.append(cache.stat().st_size)
    assert times[0] > 0


def test_the_lean_runtime_inside_the_engine() -> None:
    x = torch.randn(2, 256, device="cuda")
    model = made("mlp").cuda()
    program = portrt.compile(model, inputs=[x], engines=[engine(exclude_lean_runtime=False)])
    with portrt.runtime.policy(fallback="error"), torch.no_grad():
        assert relative(program(x), model(x)) <= 2e-3


def test_blocks_around_what_stays_in_pytorch() -> None:
    class Around(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = torch.nn.Linear(256, 256), torch.nn.Linear(256, 64)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(torch.sinh(self.first(x).relu() / 4)).relu()

    torch.manual_seed(0)
    model, x = Around().eval().cuda(), torch.randn(4, 256, device="cuda")
    program = portrt.compile(
        model, inputs=[x], engines=[engine()], min_block_size=1, torch_executed_ops=["aten.sinh"]
    )
    with portrt.runtime.policy(fallback="error"), torch.no_grad():
        assert relative(program(x), model(x)) <= 2e-3


def build(
    model: onnx.ModelProto,
    *profiles: Mapping[str, Any],
    shape_inputs: Sequence[str] = (),
    **options: Any,
) -> bytes:
    """The plan of an ONNX model, by the worker."""
    job = {
        "shape_inputs": list(shape_inputs),
        "module": "tensorrt",
        "profiles": list(profiles),
        "optimization_level": None,
        "workspace_size": 0,
        "version_compatible": True,
        "exclude_lean_runtime": True,
        "hardware_compatible": False,
        "compute_capabilities": [],
        **options,
    }
    data = model.SerializeToString()
    built = build_in_process(job, data, None, what="it", python=PYTHON, timeout_s=600)
    return built.data


def graph(nodes: list[Any], inputs: list[Any], outputs: list[Any]) -> onnx.ModelProto:
    made = helper.make_graph(nodes, "test", inputs, outputs)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def value(name: str, shape: list[Any], kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def test_what_the_header_of_a_plan_tells() -> None:
    """Of plans that were built just now, with and without a library of code inside."""
    model = graph(
        [helper.make_node("Exp", ["x"], ["y"])], [value("x", [4])], [value("y", [4])]
    )  # fmt: skip
    major, minor = torch.cuda.get_device_capability()
    for flags, lean in (
        ({"version_compatible": True, "exclude_lean_runtime": True}, "outside"),
        ({"version_compatible": True, "exclude_lean_runtime": False}, "inside"),
        ({"version_compatible": False, "exclude_lean_runtime": False}, "outside"),
    ):
        plan = build(model, {"x": [[4]] * 3}, **flags)
        header = read_plan_header(plan, len(plan))
        assert header.backend == "tensorrt"
        assert header.version.startswith("8.6.0")
        assert header.compute_capabilities == (f"{major}.{minor}",)
        assert header.lean_runtime == lean


def test_two_profiles_and_no_stall_between_them() -> None:
    """Prefill and decode: each call takes the profile that has its sizes."""
    model = graph(
        [helper.make_node("Softmax", ["x"], ["s"], axis=1), helper.make_node("Exp", ["s"], ["y"])],
        [value("x", ["b", "n"])], [value("y", ["b", "n"])],
    )  # fmt: skip
    plan = build(
        model,
        {"x": [[1, 1], [8, 1], [64, 1]]},
        {"x": [[1, 16], [1, 128], [2, 512]]},
    )
    batch, length = torch.export.Dim("b", max=64), torch.export.Dim("n", max=512)
    program = portrt.from_plan(
        plan,
        {"x": torch.ones(2, 16)},
        outputs=lambda x: {"y": torch.empty_like(x)},
        dynamic_shapes={"x": {0: batch, 1: length}},
        trust="host-code",
        version_compatible=True,
        lean_runtime="outside",
        fallback="error",
    )
    for shape in [(3, 1), (2, 77), (64, 1), (1, 512), (2, 16)] * 3:
        x = torch.randn(shape, device="cuda")
        torch.testing.assert_close(program(x), x.softmax(1).exp(), rtol=1e-4, atol=1e-5)
    with pytest.raises(EngineError, match="profile 1"):
        program(torch.randn(3, 16, device="cuda"))


def test_inputs_of_rank_0() -> None:
    model = graph(
        [helper.make_node("Mul", ["x", "k"], ["y"])],
        [value("x", [4]), value("k", [])], [value("y", [4])],
    )  # fmt: skip
    plan = build(model, {"x": [[4]] * 3, "k": [[]] * 3})
    program = portrt.from_plan(
        plan,
        {"x": torch.ones(4), "k": torch.tensor(2.0)},
        outputs={"y": torch.empty(4)},
        trust="host-code",
        version_compatible=True,
        lean_runtime="outside",
        fallback="error",
    )
    x = torch.randn(4, device="cuda")
    torch.testing.assert_close(program(x, torch.tensor(3.0, device="cuda")), x * 3)


def places_of_ones() -> Any:
    """torch.nonzero, transposed, as a program of a plan: its size is known after the run."""
    model = graph(
        [helper.make_node("NonZero", ["x"], ["y"])],
        [value("x", ["b", 8])], [value("y", [2, "n"], TensorProto.INT64)],
    )  # fmt: skip
    plan = build(model, {"x": [[1, 8], [4, 8], [64, 8]]})

    def outputs(x: torch.Tensor) -> dict[str, torch.Tensor]:
        found = torch.library.get_ctx().new_dynamic_size()
        return {"y": torch.empty(2, found, dtype=torch.int64)}

    return portrt.from_plan(
        plan,
        {"x": torch.ones(4, 8)},
        outputs=outputs,
        trust="host-code",
        version_compatible=True,
        lean_runtime="outside",
        fallback="error",
        dynamic_shapes={"x": {0: torch.export.Dim("b", max=64)}},
    )


def runs_here(*libraries: str) -> bool:
    """Whether one of these libraries is here, of the builder's own release."""
    there = this_machine().versions
    built = builder_version(PYTHON or sys.executable)
    return any(same_release(built, there.get(name) or "0") for name in libraries)


def need_of_its_release(*libraries: str) -> None:
    if not runs_here(*libraries):
        pytest.skip(f"no {' or '.join(libraries)} of the builder's own release is here")


def test_outputs_whose_size_the_numbers_decide_are_refused_by_a_newer_runtime() -> None:
    """An engine of TensorRT 8.6 that asks TensorRT 10 for memory crashes."""
    if runs_here("tensorrt", "tensorrt_lean"):
        pytest.skip("a runtime of the builder's own release is here")
    with pytest.raises(NoUsableEngineError, match="data-dependent output sizes"):
        places_of_ones()(torch.ones(4, 8, device="cuda"))


def test_outputs_whose_size_the_numbers_decide() -> None:
    need_of_its_release("tensorrt", "tensorrt_lean")
    program = places_of_ones()
    before = torch.cuda.memory_allocated()
    for graphs in (0, 4):
        with portrt.runtime.cuda_graphs(graphs):
            for rows, threshold in [(4, 0.0), (64, 1.0), (1, 9.0), (4, -9.0), (4, 0.0)] * 3:
                x = (torch.randn(rows, 8, device="cuda") > threshold).float()
                found = program(x)
                assert found.dtype == torch.int64
                assert torch.equal(found, x.nonzero().T)
    del x, found
    assert torch.cuda.memory_allocated() - before < 1 << 22


def test_outputs_whose_size_the_numbers_decide_in_threads() -> None:
    need_of_its_release("tensorrt", "tensorrt_lean")
    program = places_of_ones()
    given = [
        [(torch.randn(1 + call, 8, device="cuda") > index - 2).float() for call in range(20)]
        for index in range(4)
    ]
    found: dict[int, list[torch.Tensor]] = {}

    def work(index: int) -> None:
        with torch.cuda.stream(torch.cuda.Stream()):
            found[index] = [program(x) for x in given[index]]
            torch.cuda.current_stream().synchronize()

    torch.cuda.synchronize()
    in_threads(4, work)
    for index, inputs in enumerate(given):
        for x, places in zip(inputs, found[index], strict=True):
            assert torch.equal(places, x.nonzero().T)


def test_an_engine_for_its_own_release_alone() -> None:
    need_of_its_release("tensorrt")
    model = graph([helper.make_node("Exp", ["x"], ["y"])], [value("x", [4])], [value("y", [4])])
    program = portrt.from_plan(
        build(model, {"x": [[4]] * 3}, version_compatible=False, exclude_lean_runtime=False),
        {"x": torch.ones(4)},
        outputs={"y": torch.empty(4)},
        fallback="error",
    )
    x = torch.randn(4, device="cuda")
    torch.testing.assert_close(program(x), x.exp())


def test_an_input_whose_numbers_are_a_shape() -> None:
    model = graph(
        [helper.make_node("Expand", ["x", "size"], ["y"])],
        [value("x", [1, 8]), value("size", [2], TensorProto.INT64)], [value("y", ["a", "b"])],
    )  # fmt: skip
    plan = build(
        model, {"x": [[1, 8]] * 3, "size": [[1, 8], [4, 8], [64, 8]]}, shape_inputs=["size"]
    )

    def outputs(x: torch.Tensor, size: torch.Tensor) -> dict[str, torch.Tensor]:
        found = torch.library.get_ctx().new_dynamic_size()
        return {"y": torch.empty(found, 8)}

    program = portrt.from_plan(
        plan,
        {"x": torch.ones(1, 8), "size": torch.tensor([4, 8])},
        outputs=outputs,
        trust="host-code",
        version_compatible=True,
        lean_runtime="outside",
        fallback="error",
    )
    for rows in (3, 1, 64, 3):
        x = torch.randn(1, 8, device="cuda")
        found = program(x, torch.tensor([rows, 8], device="cuda"))
        assert torch.equal(found, x.expand(rows, 8))
    if runs_here("tensorrt", "tensorrt_lean"):  # a newer one does not tell the bounds
        with pytest.raises(EngineError, match="65"):
            program(x, torch.tensor([65, 8], device="cuda"))


def test_what_the_parser_refuses_stays_in_pytorch() -> None:
    """TensorRT 8.6 has no bitwise operators on whole numbers."""

    class Mixed(torch.nn.Module):
        def forward(self, x: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
            h = (x * 2).exp().relu() + x
            return torch.bitwise_and(k, 5).to(x.dtype) + h.tanh() * h

    model = Mixed()
    x, k = torch.randn(4, 8, device="cuda"), torch.arange(8, device="cuda", dtype=torch.int32)
    program = portrt.compile(
        model,
        inputs=[x, k],
        engines=[engine()],
        min_block_size=1,
        output_format="exported_program",
    )
    reports = portrt.runtime.report(program, "cuda")
    assert reports
    assert all(block.runs_as == "tensorrt" for block in reports)
    assert relative(program.module()(x, k), model(x, k)) <= 2e-3


def test_a_builder_that_is_not_there_and_no_builder_at_all(tmp_path: Path) -> None:
    x = torch.ones(2, 256, device="cuda")
    with pytest.raises(portrt.PortrtError, match="cannot be started"):
        portrt.compile(
            made("mlp").cuda(), inputs=[x], engines=[engine(builder_python=str(tmp_path / "no"))]
        )
    bare = tmp_path / "bare"  # this Python without what is installed in it
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    with pytest.raises(portrt.PortrtError, match="no TensorRT"):
        portrt.compile(made("mlp").cuda(), inputs=[x], engines=[engine(builder_python=str(bare))])


def test_engines_that_nobody_names_are_those_of_this_gpu(tmp_path: Path) -> None:
    """The call of Torch-TensorRT as it stands: a TensorRT engine, and an ordinary file."""
    need_of_its_release("tensorrt")
    model = made("mlp").cuda()
    program = portrt.compile(
        model,
        inputs=[torch.randn(4, 256, device="cuda")],
        min_block_size=1,
        use_python_runtime=True,
        output_format="exported_program",
    )
    torch.export.save(program, tmp_path / "model.pt2")
    loaded = torch.export.load(tmp_path / "model.pt2")
    assert [block.runs_as for block in portrt.runtime.report(loaded, "cuda")] == ["tensorrt"]
    x = torch.randn(4, 256, device="cuda")
    assert relative(loaded.module()(x), model(x).detach()) <= 2e-3
