"""A backend that refuses some of what another one takes has engines for parts of the same block.

The refusing backend is a toy whose engines are ONNX Runtime's, so that both run; the oracle is the
model in eager PyTorch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import picky_backend
import pytest
import torch
from harness import assert_same
from torch import nn
from torch.export import ExportedProgram

import portrt
from portrt import files
from portrt.compiler.backends.onnxruntime.build import OnnxRuntimeBuilder
from portrt.compiler.parts.build import merged_requirements
from portrt.errors import (
    BuildError,
    NoUsableEngineError,
    PackageError,
    PartitionError,
    SettingsError,
)
from portrt.format.compile_report import CompileReport
from portrt.format.manifest import decode
from portrt.runtime.calls import engine_calls, manifests_of
from portrt.runtime.policy import policy

CUMSUM = "aten.cumsum.default"
BOTH = ("picky", "onnxruntime")


class Model(nn.Module):
    """Weights of engines alone, of PyTorch alone, and of both, where cumsum is refused."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 4)
        self.register_buffer("scale", torch.rand(16))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = torch.relu(self.first(x)).tanh() * self.scale + 1
        y = torch.cumsum(y, 1)  # refused
        return self.second(y).sigmoid().exp() - 1, y * x.shape[0]


def x_of(rows: int) -> torch.Tensor:
    return torch.randn(rows, 8, generator=torch.Generator().manual_seed(rows))


BATCH = portrt.Input(min_shape=(1, 8), opt_shape=(3, 8), max_shape=(9, 8), name="x")


def compiled(model: nn.Module, inputs: list[Any], **options: Any) -> ExportedProgram:
    options = {"engines": BOTH, "min_block_size": 1, **options}
    program = portrt.compile(
        model.eval(), inputs=inputs, output_format="exported_program", **options
    )
    assert isinstance(program, ExportedProgram)
    return program


def manifest_of(program: ExportedProgram) -> dict[str, Any]:
    (text,) = manifests_of(program)
    found: dict[str, Any] = json.loads(text)
    return found


def shares(manifest: dict[str, Any]) -> dict[str, list[str] | None]:
    """Backend -> names of its parts, or None for an engine of the whole block."""
    return {
        engine["backend"]: [part["name"] for part in engine["parts"]["engines"]]
        if "parts" in engine
        else None
        for engine in manifest["engines"]
    }


def assert_every_choice_is_right(
    program: ExportedProgram, model: nn.Module, calls: list[list[torch.Tensor]], rtol: float = 1e-5
) -> None:
    for engine in BOTH:
        with policy(engines=engine, fallback="error"), torch.no_grad():
            module = program.module()
            for inputs in calls:
                assert_same(module(*inputs), model(*inputs), rtol, rtol)


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Callable[..., type[picky_backend.Picky]]:
    return lambda **refused: picky_backend.register(monkeypatch, **refused)


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("parts")


@pytest.fixture(scope="module")
def file(room: Path) -> Iterator[Path]:
    """A file with an engine in parts, while its backend is known."""
    with pytest.MonkeyPatch.context() as patch:
        picky_backend.register(patch, by_rule=[CUMSUM])
        path = room / "model.pt2"
        portrt.save(compiled(Model(), [BATCH]), path)
        yield path


# ---- the choice ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["by_rule", "in_builds"])
def test_what_one_backend_refuses_is_in_the_others_engine(kind: str, refusing: Any) -> None:
    refusing(**{kind: [CUMSUM]})
    model, reports = Model(), list[CompileReport]()
    program = compiled(model, [BATCH], require_full_compilation=True, report=reports.append)

    manifest = manifest_of(program)
    assert (manifest["format"], manifest["node_count"]) == (3, 12)
    assert shares(manifest) == {"picky": ["block_0", "block_1"], "onnxruntime": None}
    parts = manifest["engines"][0]["parts"]
    assert (parts["nodes"], parts["nodes_in_engines"]) == (12, 11)
    assert all(row["ok"] for engine in manifest["engines"] for row in engine["check"]["outputs"])
    assert all(row["ok"] for part in parts["engines"] for row in part["check"]["outputs"])
    operators = [n for n in program.graph.nodes if str(n.target).startswith("aten.")]
    assert operators == []
    assert_every_choice_is_right(program, model, [[x_of(rows)] for rows in (1, 3, 9)])

    (report,) = reports
    assert (report.nodes, report.nodes_in_engines, report.fallbacks) == (12, 12, ())
    (partial,) = report.partial_engines
    assert (partial.backend, partial.nodes_in_engines, partial.parts) == ("picky", 11, 2)
    assert partial.reason.startswith(f"{CUMSUM}: picky ")
    assert CompileReport.from_json(manifest["report"]) == report


def test_backends_that_agree_have_the_engines_that_they_had(refusing: Any) -> None:
    built = refusing().built
    manifest = manifest_of(compiled(Model(), [x_of(3)]))

    assert manifest["format"] == 1
    assert shares(manifest) == {"picky": None, "onnxruntime": None}
    assert "partial_engines" not in manifest["report"]
    assert len(built) == 1


def test_a_backend_alone_still_cuts_the_program(refusing: Any) -> None:
    refusing(by_rule=[CUMSUM])
    program = compiled(Model(), [x_of(3)], engines="picky")

    assert [json.loads(text)["format"] for text in manifests_of(program)] == [1, 1]
    assert [str(n.target) for n in program.graph.nodes if "aten." in str(n.target)] == [CUMSUM]


def test_a_backend_that_takes_too_little_is_left_out_with_its_reason(refusing: Any) -> None:
    refusing(by_rule=[CUMSUM])
    model, reports = Model(), list[CompileReport]()
    # The block is not the whole model.
    options = {"min_block_size": 6, "torch_executed_ops": {"aten.relu.default"}}
    program = compiled(model, [x_of(3)], report=reports.append, **options)

    assert shares(manifest_of(program)) == {"onnxruntime": None}
    (missing,) = reports[0].missing_engines
    assert (missing.block, missing.backend) == ("block_0", "picky")
    assert f"{CUMSUM}: picky has no {CUMSUM}" in missing.reason
    assert "min_block_size is 6" in missing.reason


def test_of_a_whole_model_the_largest_part_is_in_an_engine(refusing: Any, room: Path) -> None:
    refusing(by_rule=[CUMSUM, "aten.sigmoid.default"])
    model = Model()
    program = compiled(model, [x_of(3)], min_block_size=12)

    (engine, _) = manifest_of(program)["engines"]
    assert engine["parts"]["nodes_in_engines"] == 5  # up to cumsum
    assert_every_choice_is_right(program, model, [[x_of(3)]])
    portrt.save(program, room / "largest.pt2")
    files.strip(room / "largest.pt2", engine="picky")
    files.add_engine(room / "largest.pt2", "picky", first=True, min_block_size=12)
    added = manifest_of(portrt.load(room / "largest.pt2"))["engines"][0]
    assert added["parts"]["nodes_in_engines"] == 5


def test_a_build_that_names_no_node_is_not_tried_in_parts(refusing: Any) -> None:
    picky = refusing(silently=[CUMSUM])
    reports = list[CompileReport]()
    program = compiled(Model(), [x_of(3)], report=reports.append)

    assert shares(manifest_of(program)) == {"onnxruntime": None}
    assert [item.reason for item in reports[0].missing_engines] == ["picky crashed"]
    assert picky.built == []
    with pytest.raises(BuildError, match="picky crashed"):
        compiled(Model(), [x_of(3)], require_engines=True)


def test_what_no_builder_takes_is_in_no_block(
    refusing: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both refuse the same node in their builds: the program is cut, as for one backend."""
    refusing()
    build = OnnxRuntimeBuilder.build

    def refuse(self: Any, build_input: Any, settings: Any) -> Any:
        if any(str(n.target) == CUMSUM for n in build_input.block.program.graph.nodes):
            raise BuildError("it refuses node_cumsum", "something else", "wait")
        return build(self, build_input, settings)

    monkeypatch.setattr(OnnxRuntimeBuilder, "build", refuse)
    model = Model()
    program = compiled(model, [x_of(3)])

    found = [shares(json.loads(text)) for text in manifests_of(program)]
    assert found == [{"picky": None, "onnxruntime": None}] * 2
    assert_every_choice_is_right(program, model, [[x_of(3)]])


class Products(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = torch.cumsum(torch.relu(x) + 1, 1)  # the toy refuses it
        return y.sin(), (y * 2).to(torch.int64).prod(1) * 3  # and ONNX Runtime the product


def test_where_each_refuses_another_node_the_best_choice_counts(refusing: Any) -> None:
    refusing(by_rule=[CUMSUM, "aten.sin.default"], takes=["aten.prod.dim_int"])
    model, reports = Products(), list[CompileReport]()
    program = compiled(model, [torch.rand(2, 3)], report=reports.append)

    manifest = manifest_of(program)
    assert shares(manifest) == {
        "picky": ["block_0", "block_1"],
        "onnxruntime": ["block_0", "block_1"],
    }
    assert_every_choice_is_right(program, model, [[torch.rand(2, 3)]])
    (report,) = reports
    assert (report.nodes, report.nodes_in_engines) == (8, 7)
    (left,) = report.fallbacks
    assert (left.operator, left.count) == ("aten.prod.dim_int", 1)
    assert left.source.endswith("# and ONNX Runtime the product")
    with pytest.raises(PartitionError, match=r"prod \(aten.prod.dim_int\): onnxruntime"):
        compiled(model, [torch.rand(2, 3)], require_full_compilation=True)


def test_a_dry_run_tells_what_each_backend_takes(
    refusing: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    built = refusing(by_rule=[CUMSUM]).built
    compiled(Model(), [x_of(3)], dryrun=True)

    words = "picky takes block_0 in 2 parts, with 1 of 11 operators in PyTorch"
    assert words in capsys.readouterr().out
    assert built == []


def test_a_lower_precision_is_that_of_every_part(refusing: Any) -> None:
    refusing(by_rule=[CUMSUM])
    model = Model()
    program = compiled(model, [x_of(3)], precision="fp16")

    engine = manifest_of(program)["engines"][0]
    found = [engine, *engine["parts"]["engines"]]
    assert [item["build"]["precision"] for item in found] == ["fp16"] * 3
    assert_every_choice_is_right(program, model, [[x_of(3)]], rtol=1e-2)


# ---- what is in the parts -----------------------------------------------------------------------


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.third = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.first(x))
        refused = lambda y: torch.cumsum(self.second(y), 1).sigmoid()  # noqa: E731
        taken = lambda y: self.third(y).tanh()  # noqa: E731
        return torch.cond(x.sum() > 0, refused, taken, (y,)) * 2


class Selects(nn.Module):
    """A data-dependent size between the parts."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        keep = torch.sigmoid(self.linear(x))[:, 0] > 0.5
        return self.linear(x[keep]).cumsum(1) + 1, keep.nonzero()[:, 0]


class Sums(nn.Module):
    """The size of a part's input is a sum of two, and an output is an input."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        both = torch.cumsum(torch.cat([x.relu(), y]) * 2, 1)
        return both.reshape(-1)[: x.shape[0] + 1], both.sum(0) + y.shape[0], x


Y = portrt.Input(min_shape=(2, 8), opt_shape=(4, 8), max_shape=(9, 8), name="y")


@pytest.mark.parametrize(
    ("model", "inputs", "calls"),
    [
        (Branches(), [x_of(3)], [[x_of(3)], [x_of(3).abs()], [-x_of(3).abs()]]),
        (Selects(), [x_of(20)], [[x_of(20)], [x_of(20) * 0 - 9], [x_of(20) * 3]]),
        (Sums(), [BATCH, Y], [[x_of(n), x_of(n + 1)] for n in (1, 3, 8)]),
    ],
    ids=["branches", "data-dependent", "sums"],
)
def test_parts_compute_what_the_model_does(
    model: nn.Module, inputs: list[Any], calls: list[list[torch.Tensor]], refusing: Any
) -> None:
    refusing(by_rule=[CUMSUM])
    program = compiled(model, inputs)

    assert shares(manifest_of(program))["picky"] is not None
    assert_every_choice_is_right(program, model, calls)


def test_a_program_in_parts_takes_only_the_weights_that_pytorch_uses(refusing: Any) -> None:
    refusing(by_rule=["aten.mul.Tensor"])
    engine = manifest_of(compiled(Model(), [x_of(3)]))["engines"][0]

    assert engine["weights"] == ["scale"]
    assert engine["parts"]["engines"][0]["weights"] == ["first.weight", "first.bias"]


def test_requirements_of_parts_hold_together() -> None:
    found = merged_requirements(
        [
            {"device": ["cpu"], "onnxruntime": "1.23", "os": ["linux", "windows"]},
            {"device": ["cpu"], "onnxruntime": "1.9", "os": ["linux"], "host_code": False},
            {"device": ["cpu", "cuda"], "onnxruntime": "1.23", "host_code": True},
        ]
    )

    wanted = {"device": ["cpu"], "onnxruntime": "1.23", "os": ["linux"], "host_code": True}
    assert found == wanted


# ---- the file -----------------------------------------------------------------------------------


def test_a_file_states_what_runs_in_parts(file: Path) -> None:
    words = "in 2 parts, with 1 of 12 operators in PyTorch"
    (block,) = portrt.runtime.report(portrt.load(file))
    assert block.runs_as == "picky"
    assert dict(block.verdicts)["picky"].reason == words
    assert files.check(file).blocks[0].engines[0].verdict.reason == words
    engine = portrt.inspect(file).blocks[0].engines[0]
    assert [part["name"] for part in engine["parts"]["engines"]] == ["block_0", "block_1"]
    assert files.verify(file).compared == 2
    assert files.verify(file).ok


def test_each_part_is_a_plan_of_its_own(file: Path, room: Path) -> None:
    with pytest.raises(SettingsError, match="is in parts: block_0, block_1"):
        files.extract(file, "plan", room / "plan", engine="picky")
    with pytest.raises(PackageError, match="no part 'block_7'"):
        files.extract(file, "plan", room / "plan", engine="picky", part="block_7")
    files.extract(file, "plan", room / "plan", engine="picky", part="block_1")
    part = portrt.inspect(file).blocks[0].engines[0]["parts"]["engines"][1]
    assert (room / "plan").stat().st_size == part["bytes"]


@pytest.mark.parametrize("gone", ["picky", "onnxruntime"])
def test_a_file_is_right_after_engine_and_source_are_gone(
    gone: str, file: Path, room: Path
) -> None:
    files.strip(file, engine=gone, source=True, output=room / "stripped.pt2")
    program = portrt.load(room / "stripped.pt2", verify=True)

    assert manifest_of(program)["format"] == (1 if gone == "picky" else 3)
    with policy(fallback="error"), torch.no_grad():
        assert_same(program.module()(x_of(2)), Model()(x_of(2)), 1e-5, 1e-5)


def test_an_engine_in_parts_is_added_and_rebuilt(file: Path, room: Path) -> None:
    files.strip(file, engine="picky", output=room / "one.pt2")
    files.add_engine(room / "one.pt2", "picky", output=room / "two.pt2", first=True)
    added, first = (manifest_of(portrt.load(path)) for path in (room / "two.pt2", file))
    assert shares(added) == shares(first)
    assert added["format"] == 3
    with policy(engines="picky", fallback="error"), torch.no_grad():
        module = portrt.load(room / "two.pt2", verify=True, output_format="module")
        assert_same(module(x_of(2)), Model()(x_of(2)), 1e-5, 1e-5)

    module = portrt.load(room / "one.pt2", rebuild="missing", output_format="module")
    with policy(engines="picky", fallback="error", rebuild="missing"), torch.no_grad():
        assert_same(module(x_of(2)), Model()(x_of(2)), 1e-5, 1e-5)


def test_layers_of_all_parts_are_timed(file: Path) -> None:
    (block,) = files.profile(file, engine="picky", calls=1).blocks

    nodes = {node for layer in block.layers for node in layer.nodes}
    assert {"cumsum", "linear", "linear_1"} <= nodes


def test_a_script_has_the_parts(file: Path, room: Path) -> None:
    program = compiled(Model(), [x_of(3)])
    portrt.save(program, room / "model.ts", output_format="torchscript")
    with policy(engines="picky", fallback="error"), torch.no_grad():
        found = torch.jit.load(room / "model.ts")(x_of(3))
        assert_same(tuple(found), Model()(x_of(3)), 1e-5, 1e-5)


def test_a_part_that_cannot_be_opened_leaves_the_choice_to_the_next_engine(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = portrt.load(file)
    opened = picky_backend.Runtime.open

    def fails(self: Any, engine: Any, signature: Any, *args: Any, **options: Any) -> Any:
        if signature.name == "block_1":
            raise portrt.errors.EngineError("no memory", "more of it", "add some")
        return opened(self, engine, signature, *args, **options)

    monkeypatch.setattr(picky_backend.Runtime, "open", fails)
    with policy(fallback="error"), torch.no_grad():
        assert_same(program.module()(x_of(2)), Model()(x_of(2)), 1e-5, 1e-5)
    with (
        policy(engines="picky", fallback="error"),
        pytest.raises(NoUsableEngineError, match="no memory"),
    ):
        program.module()(x_of(2))


def call_with(program: ExportedProgram, edit: Callable[[dict[str, Any]], Any]) -> Any:
    """Call the block of a program with an edited manifest."""
    (node,) = engine_calls(program)
    entry = json.loads(node.args[2])
    edit(entry)
    names = program.graph_signature.inputs_to_lifted_tensor_constants
    blobs = [program.constants[names[blob.name]] for blob in node.args[1]]
    return torch.ops.portrt.execute_engine([x_of(2)], blobs, json.dumps(entry))


def test_damaged_and_exchanged_parts_are_refused(file: Path) -> None:
    program = portrt.load(file)

    def parts(entry: dict[str, Any]) -> Any:
        return entry["engines"][0]["parts"]["engines"]

    with pytest.raises(PackageError, match="is damaged"):
        call_with(program, lambda entry: parts(entry)[1]["data"].update(sha256="0" * 64))
    with pytest.raises(PackageError, match="calls"):
        call_with(program, lambda entry: parts(entry)[1].update(name="other"))
    text = manifests_of(program)[0].replace('"format":3', '"format":2')
    with pytest.raises(PackageError, match="format version 3"):
        decode(text)
