"""Sizes of 0 in parts of an engine: the source runs such calls, as for one of a whole block."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import picky_backend
import pytest
import torch
from harness import assert_same
from torch import nn
from torch.export import Dim

import portrt
from portrt import files
from portrt.errors import OutOfProfileError, PackageError
from portrt.format.manifest import decode
from portrt.runtime.calls import manifests_of
from portrt.runtime.policy import policy
from portrt.runtime.select import FallbackWarning

CUMSUM = "aten.cumsum.default"
BATCH = Dim("batch", min=0, max=8)


class Sequences(nn.Module):
    """An LSTM ends ONNX Runtime's process without a batch; its part takes other sizes than it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm, self.linear = nn.LSTM(4, 3, batch_first=True), nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.cumsum(torch.relu(x).transpose(0, 1), 2)  # refused by the toy
        return self.linear(self.lstm(y.transpose(0, 1))[0]) * 2


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("sizes") / "model.pt2"
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, about exports of layers without a state
        picky_backend.register(patch, by_rule=[CUMSUM])
        program = portrt.compile(
            Sequences().eval(),
            inputs=[torch.rand(2, 5, 4)],
            dynamic_shapes=({0: BATCH},),
            engines=("picky", "onnxruntime"),
            min_block_size=1,
            output_format="exported_program",
        )
        portrt.save(program, path)
        yield path


def entry_of(program: Any) -> Any:
    return json.loads(manifests_of(program)[0])


def test_only_the_part_has_the_sizes_that_must_not_be_0(file: Path) -> None:
    engine = entry_of(portrt.load(file))["engines"][0]

    assert "nonzero_sizes" not in engine["requires"]
    found = [part["requires"]["nonzero_sizes"] for part in engine["parts"]["engines"]]
    assert found[0] == []
    assert found[1] != []


@pytest.mark.parametrize("engine", ["picky", "onnxruntime"])
def test_the_source_runs_calls_without_a_batch(engine: str, file: Path) -> None:
    module = portrt.load(file, engines=engine).module()
    with torch.no_grad():
        assert_same(module(torch.ones(3, 5, 4)), Sequences()(torch.ones(3, 5, 4)), 1e-5, 1e-5)
        with pytest.warns(FallbackWarning, match="a size of 0"):
            assert_same(module(torch.ones(0, 5, 4)), Sequences()(torch.ones(0, 5, 4)), 0, 0)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # it warns once
            module(torch.ones(0, 5, 4))
            assert_same(module(torch.ones(1, 5, 4)), Sequences()(torch.ones(1, 5, 4)), 1e-5, 1e-5)
    with (
        policy(engines=engine, fallback="error"),
        pytest.raises(OutOfProfileError, match="was called with"),
    ):
        module(torch.ones(0, 5, 4))


def test_an_engine_in_parts_is_compared_on_sizes_that_it_takes(file: Path, tmp_path: Path) -> None:
    assert files.verify(file).ok
    with policy(engines="picky", check="first-open"), torch.no_grad():
        module = portrt.load(file).module()
        assert_same(module(torch.ones(3, 5, 4)), Sequences()(torch.ones(3, 5, 4)), 1e-5, 1e-5)


@pytest.mark.parametrize(
    "trees",
    [
        [["dim", 9, 0]],
        [["dim", 0, 9]],
        [["dim", 0, -1]],
        ["x"],
        [None],
        [["add", 1]],
        [["truediv", 1, 2]],
        [["eval", 1]],
        {"dim": 0},
        "dim",
    ],
    ids=str,
)
def test_sizes_that_the_parts_inputs_do_not_have_are_refused(trees: Any, file: Path) -> None:
    program = portrt.load(file)
    entry = entry_of(program)
    entry["engines"][0]["parts"]["engines"][1]["requires"]["nonzero_sizes"] = trees
    node = next(n for n in program.graph.nodes if "execute_engine" in str(n.target))
    names = program.graph_signature.inputs_to_lifted_tensor_constants
    blobs = [program.constants[names[blob.name]] for blob in node.args[1]]
    with policy(engines="picky"), pytest.raises(PackageError):
        torch.ops.portrt.execute_engine([torch.ones(3, 5, 4)], blobs, json.dumps(entry))
    if isinstance(trees, list):  # its form is only known with the inputs
        assert decode(json.dumps(entry)).engines[0].parts is not None
