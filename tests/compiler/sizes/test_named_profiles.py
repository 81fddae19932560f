"""Optimization profiles given by the names of sizes: from `compile` to the builder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.export import Dim, ExportedProgram

import portrt
from portrt.compiler.backends import registry
from portrt.compiler.backends.tensorrt.worker import build_engine
from portrt.compiler.capture import capture
from portrt.compiler.sizes.tuning import sizes_to_tune_for
from portrt.errors import BuildError, SettingsError

RTX = registry.builder("tensorrt_rtx").can_build()
needs_tensorrt_rtx = pytest.mark.skipif(not RTX, reason=str(RTX))
X, Y = torch.randn(9, 2, 4), torch.randn(4)


class Related(nn.Module):
    """`x` has 2 * n + 1 rows, `y` n."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        rows = torch.cat([y.sigmoid() * 2, y.exp(), torch.ones(1)])
        return x.tanh().sum((1, 2)).relu() + rows


class Text(nn.Module):
    def forward(self, tokens: torch.Tensor, *, state: dict[str, list[torch.Tensor]]) -> Any:
        (rows,) = state["rows"]
        return (tokens * rows.sum(-1)).relu() + 1


def related(**options: Any) -> Any:
    n = Dim("n", min=2, max=40)
    return portrt.compile(
        Related(),
        inputs=[X, Y],
        dynamic_shapes=({0: 2 * n + 1}, {0: n}),
        output_format="exported_program",
        **options,
    )


def entry_of(program: Any) -> dict[str, Any]:
    target = torch.ops.portrt.execute_engine.default
    (call,) = [node for node in program.graph.nodes if node.target is target]
    found: dict[str, Any] = json.loads(call.args[2])
    return found


def profiles_of(program: Any, backend: str = "tensorrt_rtx") -> Any:
    (engine,) = [item for item in entry_of(program)["engines"] if item["backend"] == backend]
    return engine["build"]["profiles"]


def tuned(*args: Any, profiles: Any, **options: Any) -> list[Any]:
    """The ranges of each symbol, in the order of the program's."""
    program = capture(*args, **options)
    kwargs = {name: options.get(name) for name in ("kwargs", "dynamic_shapes")}
    found = sizes_to_tune_for(program, args[1], **kwargs, profiles=profiles)
    return [found[symbol] for symbol in program.range_constraints if symbol in found]


@needs_tensorrt_rtx
def test_the_builder_gets_a_profile_for_each_mapping() -> None:
    program = related(
        engines="tensorrt_rtx", profiles=[{"n": 3}, {"x[0]": (9, 21, 61)}, {"y[0]": (2, 5, 6)}, {}]
    )

    assert profiles_of(program) == [
        {"x": [[7, 2, 4]] * 3, "y": [[3]] * 3},
        {"x": [[9, 2, 4], [21, 2, 4], [61, 2, 4]], "y": [[4], [10], [30]]},
        {"x": [[5, 2, 4], [11, 2, 4], [13, 2, 4]], "y": [[2], [5], [6]]},
        {"x": [[5, 2, 4], [9, 2, 4], [81, 2, 4]], "y": [[2], [4], [40]]},
    ]


def test_onnxruntime_takes_all_sizes_of_the_dim_in_any_case() -> None:
    module = related(engines="onnxruntime", profiles=[{"n": 3}]).module()
    for n in (2, 3, 17, 40):
        x, y = torch.randn(2 * n + 1, 2, 4), torch.randn(n)
        torch.testing.assert_close(module(x, y), Related()(x, y))


STEP, PREFILL = {"batch": (1, 4, 8), "length": 1}, {"batch": 1, "length": (2, 64, 128)}
BATCH, LENGTH = Dim("batch", min=1, max=8), Dim("length", min=1, max=128)
TOKENS, ROWS = torch.randn(2, 3), torch.randn(2, 3, 4)
RANGE = {"min_shape": (1, 1), "opt_shape": (2, 3), "max_shape": (8, 128)}


@pytest.mark.parametrize(
    "dynamic_shapes",
    [
        {"tokens": {0: BATCH, 1: LENGTH}, "state": {"rows": [{0: BATCH, 1: LENGTH}]}},
        {"tokens": (BATCH, LENGTH), "state": {"rows": [(BATCH, LENGTH, None)]}},
        ({0: BATCH, 1: LENGTH}, {"rows": [{0: Dim.AUTO, 1: Dim.AUTO}]}),
    ],
    ids=["mappings", "tuples", "in order, with AUTO"],
)
def test_names_are_those_of_the_dims(dynamic_shapes: Any) -> None:
    found = tuned(
        Text(),
        [TOKENS],
        kwargs={"state": {"rows": [ROWS]}},
        dynamic_shapes=dynamic_shapes,
        profiles=[STEP, PREFILL],
    )

    assert found == [((1, 4, 8), (1, 1, 1)), ((1, 1, 1), (2, 64, 128))]


def test_names_are_those_of_shared_dims() -> None:
    given = portrt.Input(**RANGE, shared_dims={0: "batch", 1: "length"})
    rows = portrt.Input(
        min_shape=(1, 1, 4),
        opt_shape=(2, 3, 4),
        max_shape=(8, 128, 4),
        shared_dims={0: "batch", 1: "length"},
    )
    found = tuned(Text(), [given], kwargs={"state": {"rows": [rows]}}, profiles=[STEP, PREFILL, {}])

    assert found == [
        ((1, 4, 8), (1, 1, 1), (1, 2, 8)),  # the last as the Input has it
        ((1, 1, 1), (2, 64, 128), (1, 3, 128)),
    ]


class Double(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x * 2).relu().exp() - x.tanh()


def exported(*dims: Any) -> ExportedProgram:
    axes = dict(enumerate(dims))
    return torch.export.export(Double(), (torch.randn(4, 6),), dynamic_shapes=(axes,))


@needs_tensorrt_rtx
def test_an_exported_program_has_its_own_ranges_as_the_profile() -> None:
    program = exported(Dim.DYNAMIC(min=3, max=9), Dim("n", max=32))
    made = portrt.compile(program, engines="tensorrt_rtx", output_format="exported_program")

    assert profiles_of(made) == [{"x": [[3, 0], [4, 6], [9, 32]]}]


@needs_tensorrt_rtx
@pytest.mark.parametrize("dims", [(Dim("batch"), 6), (Dim.AUTO, Dim.AUTO), (Dim.DYNAMIC, 6)])
def test_a_size_without_a_largest_one_needs_a_profile_for_tensorrt(dims: Any) -> None:
    program = exported(*dims)
    with pytest.raises(BuildError, match=r"of input 'x' has no upper bound") as caught:
        portrt.compile(program, engines="tensorrt_rtx")
    assert "profiles=[{'x[0]': (min, opt, max)}]" in str(caught.value)

    ranges = {f"x[{axis}]": (2, 5, 64) for axis, dim in enumerate(dims) if dim != 6}
    made = portrt.compile(
        program, engines="tensorrt_rtx", profiles=[ranges], output_format="exported_program"
    )
    (shapes,) = profiles_of(made)
    for sizes, wanted in zip(shapes["x"], (2, 5, 64), strict=True):
        assert sizes == [wanted, 6 if dims[1] == 6 else wanted]


@needs_tensorrt_rtx
def test_the_other_engine_takes_the_sizes_without_a_largest_one() -> None:
    made = portrt.compile(
        exported(Dim("batch"), 6),
        engines=("tensorrt_rtx", "onnxruntime"),
        output_format="exported_program",
    )
    assert [item["backend"] for item in entry_of(made)["engines"]] == ["onnxruntime"]
    for batch in (2, 500):
        x = torch.randn(batch, 6)
        torch.testing.assert_close(made.module()(x), Double()(x))


@pytest.mark.parametrize(
    ("profiles", "words"),
    [
        ([], r"profiles is \[\]"),
        ({"n": 3}, "profiles is {'n': 3}"),
        ([3], "profile 0 is 3"),
        ([{}, {"m": 3}], r"profile 1 names 'm'(.|\n)*: 'x\[0\]', 'y\[0\]', 'n'"),
        ([{"x[1]": 2}], r"profile 0 names 'x\[1\]'"),
        ([{"n": (1, 2, 3)}], r"gives 'n' as \(1, 2, 3\)(.|\n)*within the program's, 2 to 40"),
        ([{"x[0]": (5, 7, 99)}], r"within the program's, 5 to 81"),
        ([{"x[0]": 6}], "2 times an integer plus 1"),
        ([{"n": 3, "x[0]": 9}], "differs from that of another name"),
        ([{"n": (3, 2, 4)}], "min <= opt <= max"),
        ([{"n": (2, 4)}], "min <= opt <= max"),
        ([{"n": True}], "min <= opt <= max"),
        ([{"n": 2.0}], "min <= opt <= max"),
    ],
    ids=str,
)
def test_profiles_that_make_no_sense_are_refused(profiles: Any, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        related(engines="onnxruntime", profiles=profiles)


def test_a_size_without_a_largest_one_must_be_named_in_each_profile() -> None:
    program = exported(Dim("batch"), 6)
    with pytest.raises(SettingsError, match=r"profile 1 does not name 'x\[0\]'"):
        portrt.compile(program, engines="onnxruntime", profiles=[{"x[0]": 3}, {}])


def test_profiles_are_given_in_one_place() -> None:
    given = portrt.Input(profiles=[((1, 6), (2, 6), (4, 6)), ((4, 6), (6, 6), (8, 6))])
    with pytest.raises(SettingsError, match="both as an option and by an Input"):
        portrt.compile(Double(), inputs=[given], engines="onnxruntime", profiles=[{"x[0]": 2}])


READ_BACK = """
import json, sys, tensorrt_rtx as trt
sys.path.insert(0, sys.argv[1])
from build_engine import make_profile
builder = trt.Builder(trt.Logger())
network = builder.create_network()
for name, rank in (("x", 2), ("y", 1)):
    network.add_input(name, trt.float32, [-1] * rank)
for sizes in json.loads(sys.argv[2]):
    profile = make_profile(builder, network, sizes, ())
    assert profile
    print(json.dumps({name: [list(s) for s in profile.get_shape(name)] for name in ("x", "y")}))
"""


@needs_tensorrt_rtx
def test_tensorrt_has_the_profiles_that_the_worker_made() -> None:
    """Read back from its own object: without a GPU it opens no engine."""
    sizes = [
        {"x": [[1, 2], [3, 4], [5, 6]], "y": [[1], [1], [1]]},
        {"x": [[7, 1], [8, 1], [9, 1]], "y": [[2], [3], [4]]},
    ]
    folder = Path(build_engine.__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", READ_BACK, str(folder), json.dumps(sizes)],
        capture_output=True,
        text=True,
        check=True,
    )

    assert [json.loads(line) for line in done.stdout.splitlines()] == sizes
