"""Every model of tests/models.py: compiled, taken from the cache, and saved.

Saved ones run in new processes, loaded by torch alone, and after what torch can do to a program.
One process transforms all programs and one runs them, so that a torch import is paid twice only.
"""

from __future__ import annotations

import json
import operator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import (
    TESTS,
    Compiled,
    assert_matches_eager,
    assert_same,
    call,
    run_jobs,
    run_script,
)
from models import CASES
from torch.export import ExportedProgram

from portrt.cpp.build import Built
from portrt.runtime import policy, report
from portrt.runtime.calls import engine_calls, manifests_of

pytestmark = pytest.mark.filterwarnings("ignore:The tensor attribute.*assigned during export")

RUN = TESTS / "roundtrip" / "run.py"
TRANSFORM = TESTS / "roundtrip" / "transform.py"

# torch alone loads these; the rest needs the module that has the operator or the output's class.
TORCH_ALONE = [name for name, case in CASES.items() if not case.needs]
WITH_IMPORTS = [name for name, case in CASES.items() if case.needs]

EXPORTED = [
    "mlp_dim_auto",
    "mlp_bfloat16",
    "nested_outputs",
    "none_output",
    "input_is_output",
    "number_output",
    "size_output",
    "constant_output",
    "tied_weights",
    "buffers",
    "counter",
    "running_mean",
    "mutated_input",
    "keyword_inputs",
    "transformer_layer",
    "conv_dynamic_size",
    "two_towers",
    "cat_of_two_lengths",
    "even_batch",
    "nonzero",
    "cond",
    "custom_op_between",
    "sizes_on_both_sides",
    "weight_used_on_both_sides",
    "bert",
]
# torch 2.13 cannot decompose a loaded program with a derived dim, compiled or not.
DECOMPOSED = [name for name in EXPORTED if name != "even_batch"]
TRACED = [
    "mlp",
    "mlp_float16",
    "tied_weights",
    "counter",
    "transformer_layer",
    "conv_dynamic_size",
    "cat_of_two_lengths",
    "int_bool_scalar_inputs",
    "two_inputs_shared_dims",
]
# Run by the C++ runtime in a new process; in this one, all are.
IN_CPP = ["mlp", "counter", "transformer_layer", "nested_outputs", "nonzero", "cond", "bert"]
HOW = {
    "threads": ["mlp", "transformer_layer", "conv_dynamic_size", "custom_op_between", "bert"],
    "deepcopy": ["mlp", "counter", "running_mean", "tied_weights", "custom_op_between", "cond"],
    "compile:aot_eager": ["mlp", "counter", "transformer_layer", "custom_op_between", "even_batch"],
    "compile:inductor": ["two_towers"],
}


@dataclass
class Trip:
    """Where one case ended after one way through processes."""

    name: str
    outputs: Path
    error: str = ""


class Trips:
    def __init__(self, compiled: Compiled, folder: Path) -> None:
        self._compiled = compiled
        self._folder = folder
        self._trips: dict[tuple[str, str], Trip] = {}
        self.modules: set[str] = set()

    def run(self, how: str, names: list[str]) -> None:
        """Run the saved programs as they are, in one new process."""
        jobs = [self._job(how, name, self._compiled.file(name), how) for name in names]
        self._finish(how, names, jobs)

    def transform_and_run(self, how: str, names: list[str], suffix: str = ".pt2") -> None:
        """Transform the saved programs in one process, and run the results in another."""
        changed = [self._folder / f"{name}_{how}{suffix}" for name in names]
        transforms = [
            {"file": str(self._compiled.file(name)), "case": name, "how": how, "to": str(to)}
            for name, to in zip(names, changed, strict=True)
        ]
        errors = run_jobs(TRANSFORM, transforms, self._folder)
        done = [name for name, error in zip(names, errors, strict=True) if not error]
        jobs = [
            self._job(how, name, self._folder / f"{name}_{how}{suffix}", "run") for name in done
        ]
        self._finish(how, done, jobs)
        for name, error in zip(names, errors, strict=True):
            if error:
                self._trips[how, name] = Trip(name, Path(), f"{how} failed: {error}")

    def _job(self, trip: str, name: str, file: Path, how: str) -> dict[str, Any]:
        inputs = self._folder / f"{name}_inputs.pt"
        torch.save(CASES[name].arguments(), inputs)
        return {
            "file": str(file),
            "inputs": str(inputs),
            "outputs": str(self._folder / f"{name}_{trip.replace(':', '_')}_outputs.pt"),
            "how": how,
            "needs": CASES[name].needs,
        }

    def _finish(self, how: str, names: list[str], jobs: list[dict[str, Any]]) -> None:
        for name, job, error in zip(names, jobs, run_jobs(RUN, jobs, self._folder), strict=True):
            self._trips[how, name] = Trip(name, Path(job["outputs"]), error)

    def result(self, how: str, name: str) -> Any:
        trip = self._trips[how, name]
        assert not trip.error, trip.error
        return torch.load(trip.outputs, weights_only=False)


@pytest.fixture(scope="session")
def trips(
    compiled: Compiled,
    tmp_path_factory: pytest.TempPathFactory,
    cpp_runtime: Built,
) -> Trips:
    found = Trips(compiled, tmp_path_factory.mktemp("trips"))
    found.run("run", TORCH_ALONE)
    found.run("run", WITH_IMPORTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PORTRT_RUNTIME", "cpp")
        found.run("cpp", IN_CPP)
    for how, names in HOW.items():
        found.run(how, names)
    found.transform_and_run("reexport", EXPORTED)
    found.transform_and_run("decompose", DECOMPOSED)
    found.transform_and_run("torchscript", TRACED, ".ts")
    return found


def check(results: Any, name: str) -> None:
    case = CASES[name]
    with torch.no_grad():
        wanted = call(case.model(), case)
    assert_same(results, wanted, case.rtol, case.atol)


@pytest.mark.parametrize("name", CASES)
def test_compiled_program_gives_the_answers_of_eager(name: str, compiled: Compiled) -> None:
    program = compiled.program(name)

    assert len(list(engine_calls(program))) == CASES[name].blocks
    assert_matches_eager(call(program.module(), CASES[name]), CASES[name])


@pytest.mark.usefixtures("cpp_runtime")
@pytest.mark.parametrize("name", CASES)
def test_the_runtime_in_cpp_gives_the_answers_of_eager(name: str, compiled: Compiled) -> None:
    program = compiled.program(name)
    with policy(runtime="cpp"):
        assert all(block.runtime == "cpp" for block in report(program))
        assert_matches_eager(call(program.module(), CASES[name]), CASES[name])


def operators(program: ExportedProgram) -> list[str]:
    """In an order of their own: torch writes `getitem` at another place of an equal graph."""
    nodes = [node for node in program.graph.nodes if node.op == "call_function"]
    return sorted(str(node.target) for node in nodes if node.target is not operator.getitem)


def unchecked_manifests(program: ExportedProgram) -> list[Any]:
    """Without what the check of the whole program tried, which depends on the time it had."""
    found = [json.loads(text) for text in manifests_of(program)]
    for engine in (engine for manifest in found for engine in manifest["engines"]):
        engine["check"].pop("program", None)
    return found


@pytest.mark.filterwarnings("ignore:The tensor attributes:UserWarning")  # torch, of an LSTM
@pytest.mark.parametrize("name", CASES)
def test_a_program_from_the_cache_is_the_compiled_one(name: str, compiled: Compiled) -> None:
    cold = compiled.first(name)
    warm = CASES[name].compile(cache_dir=compiled.cache)

    assert unchecked_manifests(warm) == unchecked_manifests(cold)
    assert operators(warm) == operators(cold)
    assert warm.state_dict.keys() == cold.state_dict.keys()
    assert [repr(s) for s in warm.graph_signature.output_specs] == [
        repr(s) for s in cold.graph_signature.output_specs
    ]
    with torch.no_grad():
        assert_matches_eager(call(warm.module(), CASES[name]), CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_loaded_by_torch_in_a_new_process(name: str, trips: Trips) -> None:
    check(trips.result("run", name), name)


@pytest.mark.parametrize("name", IN_CPP)
def test_loaded_by_torch_and_run_in_cpp(name: str, trips: Trips) -> None:
    check(trips.result("cpp", name), name)


@pytest.mark.parametrize("name", EXPORTED)
def test_exported_again_saved_and_loaded(name: str, trips: Trips) -> None:
    check(trips.result("reexport", name), name)


@pytest.mark.parametrize("name", DECOMPOSED)
def test_decomposed_saved_and_loaded(name: str, trips: Trips) -> None:
    check(trips.result("decompose", name), name)


@pytest.mark.parametrize("name", TRACED)
def test_traced_to_torchscript_saved_and_loaded(name: str, trips: Trips) -> None:
    check(trips.result("torchscript", name), name)


@pytest.mark.parametrize(
    ("how", "name"),
    [(how, name) for how, names in HOW.items() if how != "threads" for name in names],
)
def test_copied_or_compiled_by_torch(how: str, name: str, trips: Trips) -> None:
    check(trips.result(how, name), name)


@pytest.mark.parametrize("name", HOW["threads"])
def test_several_threads_call_one_program(name: str, trips: Trips) -> None:
    answers = trips.result("threads", name)

    assert len(answers) == 4
    for results in answers:
        check(results, name)


HEAVY = {"onnx", "onnxscript", "onnx_ir", "tensorrt_rtx", "tensorrt"}


def test_a_process_that_runs_a_program_imports_no_builder(compiled: Compiled) -> None:
    script = (
        "import sys, torch; torch.export.load(sys.argv[1]).module()(torch.ones(2, 4)); "
        "print(*sys.modules)"
    )
    modules = set(run_script(script, str(compiled.file("mlp"))).split())

    assert "portrt.runtime.block" in modules
    assert "onnxruntime" in modules
    assert not modules & HEAVY


def test_importing_torch_registers_the_operator_and_imports_no_engine() -> None:
    script = "import sys, torch; torch.ops.portrt.execute_engine; print(*sys.modules)"
    modules = set(run_script(script).split())

    assert "portrt.runtime.op" in modules
    assert not modules & {*HEAVY, "onnxruntime"}
