"""Control flow that no engine takes: it runs in PyTorch, and what is in its branches in engines.

An operator without a translation in the middle of each branch or body keeps the call outside.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from custom_ops import shifted_relu
from harness import TESTS, assert_same, run_jobs
from torch import nn
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops.while_loop import while_loop
from torch.export import Dim, ExportedProgram

import portrt
from portrt.compiler.backends.onnxruntime.build import OnnxRuntimeBuilder
from portrt.errors import BuildError, PackageError, SettingsError
from portrt.runtime.calls import engine_calls
from portrt.runtime.select import FallbackWarning

RUN = TESTS / "roundtrip" / "run.py"
ROWS = ({0: Dim("n", min=1, max=9)},)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def between(self, x: torch.Tensor) -> torch.Tensor:
        """Engines around an operator that none has."""
        y = shifted_relu(self.first(x).tanh() * 2, 0.25)
        return self.second(y).sigmoid() + x


class Branch(Net):
    """The weights of `first` are in both branches and before them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        def no(t: torch.Tensor) -> torch.Tensor:
            return self.first(t).sin() * t.shape[0] + t

        y = self.first(x).tanh()
        return torch.cond(x.sum() > 0, self.between, no, (y,)).softmax(-1) * 2


class Nested(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        def inner(t: torch.Tensor) -> torch.Tensor:
            u = self.second(t) * 2
            return torch.cond(u.max() > 1, self.between, lambda v: v.cos() - 1, (u,)).exp() + 1

        return torch.cond(x.sum() > 0, inner, lambda t: self.first(t) * 3, (x.relu() + x,))


class Loop(Net):
    """Starts with a parameter, which the body changes and must not take for a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.randn(4))

    def forward(self, x: torch.Tensor) -> Any:
        def body(i: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> Any:
            return i + 1, self.between(y) * 0.5, self.second(z).tanh() * 2 + z

        zero = torch.zeros((), dtype=torch.int64)
        return while_loop(lambda i, y, z: i < 3, body, (zero, x, self.start))


class Scan(Net):
    """Over the rows of a parameter, from another one."""

    def __init__(self) -> None:
        super().__init__()
        self.start, self.rows = nn.Parameter(torch.randn(4)), nn.Parameter(torch.randn(5, 4))

    def forward(self, x: torch.Tensor) -> Any:
        def step(h: torch.Tensor, row: torch.Tensor) -> Any:
            h = self.between(h + row) * x.sum(0).sigmoid()
            return h, self.second(h).exp() - row

        return scan(step, self.start, self.rows)


class RandomBranch(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        def yes(t: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(t).relu() * 2) * torch.rand_like(t)

        return torch.cond(x.sum() > 0, yes, lambda t: self.first(t).tanh() - 1, (x,))


CASES: dict[str, tuple[type[nn.Module], tuple[float, ...], int]] = {
    "branch": (Branch, (2, -2, 2), 3),  # shifts of the inputs, engines in branches
    "nested": (Nested, (3, -3, 0.1, 0.3), 6),
    "loop": (Loop, (0, 1, 2), 2),
    "scan": (Scan, (0, 1, 2), 2),
    "random": (RandomBranch, (2, -2, 2), 2),
}


def calls_of(shifts: tuple[float, ...]) -> list[tuple[torch.Tensor, ...]]:
    sizes = (4, 1, 9, 6)
    return [(torch.randn(n, 4) + shift,) for n, shift in zip(sizes, shifts, strict=False)]


def results(module: Callable[..., Any], calls: Any) -> list[Any]:
    found = []
    with torch.no_grad():
        for call in copy.deepcopy(calls):
            torch.manual_seed(7)
            found.append((module(*call), call, {}))
    return found


@pytest.fixture(scope="module")
def programs() -> dict[str, tuple[ExportedProgram, Any, list[Any]]]:
    made = {}
    for name, (model, shifts, _) in CASES.items():
        torch.manual_seed(0)
        net, calls = model().eval(), calls_of(shifts)
        program = portrt.compile(
            net,
            inputs=calls[0],
            dynamic_shapes=ROWS,
            engines="onnxruntime",
            min_block_size=2,
            output_format="exported_program",
        )
        made[name] = program, calls, results(net, calls)
    return made


@pytest.mark.parametrize("name", CASES)
def test_branches_run_in_engines_with_eagers_numbers(name: str, programs: Any) -> None:
    program, calls, wanted = programs[name]
    inside = [node for node in engine_calls(program) if node.graph is not program.graph]

    assert len(inside) == CASES[name][2]
    with portrt.runtime.policy(fallback="error"):
        assert_same(results(program.module(), calls), wanted, 1e-5, 1e-5)


@pytest.mark.parametrize("name", CASES)
def test_their_sources_run_in_pytorch(name: str, programs: Any) -> None:
    program, calls, wanted = programs[name]

    policy = portrt.runtime.policy(engines=(), fallback="eager")
    with policy, pytest.warns(FallbackWarning):
        assert_same(results(program.module(), calls), wanted, 1e-5, 1e-5)


def test_a_new_process_loads_and_runs_them(programs: Any, tmp_path: Path) -> None:
    jobs = []
    for name, (program, calls, _) in programs.items():
        torch.export.save(program, tmp_path / f"{name}.pt2")
        torch.save([(call, {}) for call in calls], tmp_path / f"{name}.calls")
        job = {"file": f"{name}.pt2", "inputs": f"{name}.calls", "outputs": f"{name}.found"}
        paths = {key: str(tmp_path / value) for key, value in job.items()}
        jobs.append({**paths, "how": "run", "needs": ["custom_ops"]})
    assert not any(run_jobs(RUN, jobs, tmp_path))

    for name, (_, _, wanted) in programs.items():
        found = torch.load(tmp_path / f"{name}.found", weights_only=False)
        assert_same(found, wanted, 1e-5, 1e-5)


def test_a_weight_of_engines_alone_is_stored_once(programs: Any) -> None:
    program, *_ = programs["branch"]
    held = {**program.state_dict, **program.constants}

    assert sorted(held)[-1] == "portrt_weights"
    assert not program.state_dict
    loop = programs["loop"][0]
    assert list(loop.state_dict) == ["start"]  # a state is no constant of the body


def test_the_file_tells_of_them_and_is_mapped(programs: Any, tmp_path: Path) -> None:
    program, calls, wanted = programs["branch"]
    path = tmp_path / "model.pt2"
    portrt.save(program, path)

    info = portrt.inspect(path)
    names = ["true_graph_0_block_0", "true_graph_0_block_1", "false_graph_0_block_0"]
    assert set(names) < {block.name for block in info.blocks}
    assert info.report is not None
    (said,) = (item for item in info.report.fallbacks if item.operator == "cond")
    assert said.reason.endswith("the rest of its branches is in 3 blocks")
    assert {item.operator for item in info.report.fallbacks} == {
        "cond",
        "portrt_tests.shifted_relu.default",
    }
    loaded = portrt.load(path, verify=True, fallback="error")
    assert_same(results(loaded.module(), calls), wanted, 1e-5, 1e-5)
    checks = {block.name: block.engines[0]["check"] for block in info.blocks}
    assert all(checks[name]["outputs"] for name in names)  # of both branches, taken or not


def test_a_file_with_them_is_read_and_not_edited(programs: Any, tmp_path: Path) -> None:
    program, calls, _ = programs["branch"]
    path, model = tmp_path / "model.pt2", tmp_path / "model.onnx"
    portrt.save(program, path)
    portrt.files.extract(path, "onnx", model, block="false_graph_0_block_0")
    session = onnxruntime.InferenceSession(model)
    y = CASES["branch"][0]().first  # of the same sizes; its numbers are not looked at
    with torch.no_grad():
        given = {item.name: y(calls[0][0]).numpy() for item in session.get_inputs()}
    assert session.run(None, given)[0].shape == (4, 4)

    for edit in (
        lambda: portrt.files.strip(path, engine="onnxruntime", output=tmp_path / "less.pt2"),
        lambda: portrt.files.add_engine(path, "onnxruntime"),
    ):
        with pytest.raises(PackageError, match="engines inside branches"):
            edit()


def test_torchscript_has_no_form_for_it(programs: Any, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="'cond' calls cond in PyTorch"):
        portrt.save(programs["branch"][0], tmp_path / "model.ts", output_format="torchscript")


@pytest.mark.parametrize("name", ["branch", "nested", "loop"])
def test_other_transforms_of_torch_keep_them(name: str, programs: Any, tmp_path: Path) -> None:
    program, calls, wanted = programs[name]
    again = torch.export.export(program.module(), calls[0], dynamic_shapes=ROWS)

    for other in (again, again.run_decompositions()):
        assert len(list(engine_calls(other))) == len(list(engine_calls(program)))
        assert_same(results(other.module(), calls), wanted, 1e-5, 1e-5)
        torch.export.save(other, tmp_path / "other.pt2")  # names are others now
        loaded = portrt.load(tmp_path / "other.pt2", fallback="error")
        assert_same(results(loaded.module(), calls), wanted, 1e-5, 1e-5)


def test_what_a_builder_refuses_is_built_branch_by_branch(monkeypatch: pytest.MonkeyPatch) -> None:
    """As TensorRT-RTX 1.7 refuses some conditions inside conditions, without naming a node."""

    class Inner(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            def yes(t: torch.Tensor) -> torch.Tensor:
                return self.second(t).tanh() * 3

            y = self.first(x) * 2
            return torch.cond(x.sum() > 0, yes, lambda t: self.second(t).exp() - t, (y,)) + 1

    real = OnnxRuntimeBuilder.build

    def build(self: Any, material: Any, settings: Any) -> Any:
        if b"If" in material.convert(23).data:
            raise BuildError("the builder made no engine", "an engine", "try another")
        return real(self, material, settings)

    monkeypatch.setattr(OnnxRuntimeBuilder, "build", build)
    net = Inner().eval()
    program = portrt.compile(
        net,
        inputs=[torch.ones(3, 4)],
        engines="onnxruntime",
        min_block_size=2,
        output_format="exported_program",
    )
    inside = [node for node in engine_calls(program) if node.graph is not program.graph]
    assert len(inside) == 2
    with torch.no_grad():
        for x in (torch.ones(3, 4), -torch.ones(3, 4)):
            assert_same(program.module()(x), net(x), 1e-5, 1e-5)


def test_a_size_that_the_data_decides_in_a_branch_is_saved(tmp_path: Path) -> None:
    class Counts(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            def yes(t: torch.Tensor) -> torch.Tensor:
                y = self.first(t)
                return y.tanh() * torch.nonzero(y > 0).sum().to(t.dtype)

            return torch.cond(x.sum() > 0, yes, lambda t: self.second(t).sin() * 2, (x.exp() - 1,))

    net, x = Counts().eval(), torch.ones(3, 4)
    program = portrt.compile(
        net,
        inputs=[x],
        engines="onnxruntime",
        min_block_size=2,
        output_format="exported_program",
    )
    torch.export.save(program, tmp_path / "model.pt2")
    module = torch.export.load(tmp_path / "model.pt2").module()
    with torch.no_grad():
        for given in (x, -x):
            assert_same(module(given), net(given), 1e-5, 1e-5)
