"""Several optimization profiles: from `Input` to the builder, the file and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import assert_same
from torch import nn

import portrt
from portrt import files
from portrt.compiler.backends import registry
from portrt.compiler.capture import capture
from portrt.compiler.sizes.tuning import sizes_to_tune_for
from portrt.errors import PackageError, SettingsError
from portrt.format import manifest

PREFILL, STEP = ((1, 2, 4), (1, 16, 4), (2, 64, 4)), ((1, 1, 4), (4, 1, 4), (8, 1, 4))
RTX = registry.builder("tensorrt_rtx").can_build()
needs_tensorrt_rtx = pytest.mark.skipif(not RTX, reason=str(RTX))


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (self.linear(x).softmax(1) @ x.transpose(1, 2)).tanh() + y


def inputs() -> list[portrt.Input]:
    """The second input has no profiles: it has its range in each."""
    shared = {0: "batch", 1: "length"}
    return [
        portrt.Input(profiles=[PREFILL, STEP], shared_dims=shared),
        portrt.Input(min_shape=(1,), opt_shape=(1,), max_shape=(1,)),
    ]


def compiled(engine: str) -> Any:
    torch.manual_seed(0)
    return portrt.compile(
        Layer().eval(),
        inputs=inputs(),
        engines=engine,
        output_format="exported_program",
    )


def entry_of(program: Any) -> dict[str, Any]:
    target = torch.ops.portrt.execute_engine.default
    (call,) = [node for node in program.graph.nodes if node.target is target]
    found: dict[str, Any] = json.loads(call.args[2])
    return found


def test_bounds_are_those_of_all_profiles() -> None:
    given = inputs()[0]

    assert (given.min_shape, given.opt_shape, given.max_shape) == (
        (1, 1, 4),
        (1, 16, 4),
        (8, 64, 4),
    )
    assert given.dynamic_axes == (0, 1)
    assert given.ranges(1) == ((2, 16, 64), (1, 1, 1))


@pytest.mark.parametrize(
    "options",
    [
        {"profiles": [PREFILL], "max_shape": (8, 64, 4)},
        {"profiles": [PREFILL], "shape": (1, 2, 4)},
        {"profiles": []},
        {"profiles": [PREFILL, ((1, 1), (1, 1), (1, 1))]},
        {"profiles": [((3, 1), (2, 1), (4, 1))]},
        {"profiles": [((1, 1), (4, 1))]},
        {"profiles": [5]},
    ],
    ids=str,
)
def test_profiles_that_make_no_sense_are_refused(options: Any) -> None:
    with pytest.raises(SettingsError, match=r"profile|shape"):
        portrt.Input(**options)


def test_all_inputs_have_the_same_number_of_profiles() -> None:
    args = [
        portrt.Input(profiles=[PREFILL, STEP]),
        portrt.Input(profiles=[((1,), (1,), (9,))] * 3),
    ]
    program = capture(Sized(), args)
    with pytest.raises(SettingsError, match="profiles, another input"):
        sizes_to_tune_for(program, args, None)


class Sized(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        return x * 2, y * 2


def test_a_shared_size_has_one_range_in_each_profile() -> None:
    args = [
        portrt.Input(profiles=[((1,), (2,), (4,)), ((1,), (6,), (8,))], shared_dims={0: "n"}),
        portrt.Input(profiles=[((1,), (2,), (8,)), ((2,), (6,), (8,))], shared_dims={0: "n"}),
    ]
    program = capture(Added(), args)
    with pytest.raises(SettingsError, match="one size is"):
        sizes_to_tune_for(program, args, None)


class Added(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        return x + y


def test_the_engine_runs_in_each_profile_and_between() -> None:
    program = compiled("onnxruntime")
    sizes = entry_of(program)["inputs"][0]["shape"]
    assert [size.get("profiles") for size in sizes[:2]] == [
        [[1, 1, 2], [1, 4, 8]],
        [[2, 16, 64], [1, 1, 1]],
    ]
    torch.manual_seed(0)
    model, module = Layer().eval(), program.module()
    for batch, length in ((1, 16), (2, 64), (8, 1), (1, 1), (8, 64)):
        args = torch.randn(batch, length, 4), torch.randn(1)
        with torch.no_grad():
            assert_same(module(*args), model(*args), rtol=1e-5, atol=1e-6)


@needs_tensorrt_rtx
def test_the_builder_gets_them_and_so_it_does_from_a_file(tmp_path: Path) -> None:
    wanted = [
        {"x": [[1, 2, 4], [1, 16, 4], [2, 64, 4]], "y": [[1], [1], [1]]},
        {"x": [[1, 1, 4], [4, 1, 4], [8, 1, 4]], "y": [[1], [1], [1]]},
    ]
    (engine,) = entry_of(compiled("tensorrt_rtx"))["engines"]
    assert engine["build"]["profiles"] == wanted

    path = tmp_path / "model.pt2"
    portrt.save(compiled("onnxruntime"), path)
    files.add_engine(path, engine="tensorrt_rtx")
    added = entry_of(torch.export.load(path))["engines"][-1]
    assert added["backend"] == "tensorrt_rtx"
    assert added["build"]["profiles"] == wanted


@pytest.mark.parametrize("profile", [[1, 2], [3, 2, 4], [0, 1, 2], [1, 1, 99], [1.0, 2, 3], "1"])
def test_a_damaged_profile_in_a_file_is_refused(profile: Any) -> None:
    entry = entry_of(compiled("onnxruntime"))
    entry["inputs"][0]["shape"][1]["profiles"] = [profile]
    with pytest.raises(PackageError, match="a profile of"):
        manifest.decode(json.dumps(entry))
