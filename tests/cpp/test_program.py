"""`portrt::Program`: files of `portrt.save` without Python and torch, by the example's `main`."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from example_programs import compiled
from torch import nn
from torch.utils import _pytree as pytree

import portrt
from portrt.cpp.build import Built
from portrt.errors import InputError

ROWS = portrt.Input(min_shape=(1, 8), opt_shape=(3, 8), max_shape=(16, 8))


@pytest.fixture(scope="module")
def main(built: Built) -> Path:
    """The example's program, compiled once for the same source and library."""
    library = built.without_torch.read_bytes()
    return compiled(built, "program", built.flags_without_torch, library)


@pytest.fixture(scope="module")
def onnxruntime() -> str:
    spec = find_spec("onnxruntime")
    assert spec is not None
    assert spec.origin is not None
    return str(max(Path(spec.origin).parent.glob("capi/libonnxruntime.so*")))


@pytest.fixture
def called(
    main: Path, onnxruntime: str, tmp_path: Path
) -> Callable[..., subprocess.CompletedProcess[str]]:
    def call(
        file: Path, inputs: Sequence[torch.Tensor], **env: str
    ) -> subprocess.CompletedProcess[str]:
        lines = []
        for index, item in enumerate(inputs):
            data = item.contiguous().reshape(-1).view(torch.uint8) if item.numel() else item
            (tmp_path / f"in.{index}").write_bytes(data.numpy().tobytes())
            lines.append(" ".join([str(tmp_path / f"in.{index}"), *map(str, item.shape)]))
        (tmp_path / "inputs.txt").write_text("\n".join(lines) + "\n" if lines else "")
        environment = {**os.environ, "PORTRT_ONNXRUNTIME_LIBRARY": onnxruntime, **env}
        return subprocess.run(
            [main, file, tmp_path / "inputs.txt", tmp_path / "out"],
            capture_output=True,
            text=True,
            env=environment,
            timeout=300,
            check=False,
        )

    return call


def saved(folder: Path, model: nn.Module, *inputs: Any, **options: Any) -> Path:
    options = {"engines": "onnxruntime", "min_block_size": 1, **options}
    program = portrt.compile(
        model.eval(), inputs=list(inputs), output_format="exported_program", **options
    )
    portrt.save(program, folder / "model.pt2")
    return folder / "model.pt2"


def assert_outputs(
    done: subprocess.CompletedProcess[str], folder: Path, expected: Sequence[torch.Tensor]
) -> None:
    assert done.returncode == 0, done.stderr
    shapes = [tuple(map(int, line.split()[1:])) for line in done.stdout.splitlines()]
    assert shapes == [tuple(item.shape) for item in expected]
    for index, item in enumerate(expected):
        wanted = item.detach().numpy()
        found = np.fromfile(folder / f"out.{index}", wanted.dtype).reshape(wanted.shape)
        torch.testing.assert_close(torch.from_numpy(found), item.detach())


def test_numbers_without_python_and_torch(called: Any, tmp_path: Path) -> None:
    model = tiny.model()
    file = saved(tmp_path, model, ROWS)
    loader = {"LD_DEBUG": "files", "LD_DEBUG_OUTPUT": str(tmp_path / "loaded")}
    for rows in (1, 16, 3):
        x = torch.randn(rows, 8)
        assert_outputs(called(file, [x], **loader), tmp_path, [model(x)])
    opened = next(tmp_path.glob("loaded.*")).read_text(encoding="utf-8")
    assert "libonnxruntime" in opened
    for name in ("libtorch", "libc10", "libpython", ".cpython-"):
        assert name not in opened


class Mixed(nn.Module):
    """Many dtypes, rank 0, nested arguments and results, and a result that is there twice."""

    def forward(self, given: dict[str, torch.Tensor], scale: torch.Tensor) -> Any:
        x, index = given["x"], given["index"]
        half = (x * scale).half()
        twice = x + 1
        return {
            "found": [x[index], half],
            "sum": x.double().sum(),
            "more": (given["mask"].logical_not(), index.to(torch.int32), twice, twice),
        }


def test_nested_tensors_of_many_dtypes(called: Any, tmp_path: Path) -> None:
    given = {
        "x": torch.randn(4, 3),
        "index": torch.tensor([0, 2, 1]),
        "mask": torch.tensor([True, False, True]),
    }
    scale = torch.tensor(2.0)
    file = saved(tmp_path, Mixed(), given, scale)
    flat = pytree.tree_leaves((given, scale))
    expected = pytree.tree_leaves(Mixed()(given, scale))
    assert_outputs(called(file, flat), tmp_path, expected)


class Found(nn.Module):
    def forward(self, x: torch.Tensor) -> Any:
        return torch.nonzero(x > 0), x + 1


def test_sizes_that_depend_on_the_numbers(called: Any, tmp_path: Path) -> None:
    file = saved(tmp_path, Found(), torch.randn(4, 5))
    for x in (torch.randn(4, 5), torch.zeros(4, 5)):
        assert_outputs(called(file, [x]), tmp_path, list(Found()(x)))


class Two(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x @ y + x


def test_sizes_of_two_inputs_and_their_errors(called: Any, tmp_path: Path) -> None:
    """Errors have the texts of the operator in Python."""
    size = torch.export.Dim("size", min=1, max=9)
    shapes = {"dynamic_shapes": ({0: size, 1: size}, {0: size, 1: size})}
    program = portrt.compile(
        Two().eval(),
        inputs=[torch.randn(4, 4), torch.randn(4, 4)],
        engines="onnxruntime",
        min_block_size=1,
        output_format="exported_program",
        **shapes,
    )
    file = tmp_path / "model.pt2"
    portrt.save(program, file)
    x, y = torch.randn(3, 3), torch.randn(3, 3)
    assert_outputs(called(file, [x, y]), tmp_path, [Two()(x, y)])
    (node,) = (n for n in program.graph.nodes if "execute_engine" in str(n.target))
    targets = {spec.arg.name: spec.target for spec in program.graph_signature.input_specs}
    blobs = [program.constants[targets[arg.name]] for arg in node.args[1]]
    wrong = [
        [torch.randn(3, 3), torch.randn(4, 4)],
        [torch.randn(10, 10), torch.randn(10, 10)],
        [torch.randn(3), torch.randn(3, 3)],
        [torch.tensor(1.0), torch.randn(3, 3)],
        [torch.randn(3, 3)],
        [torch.randn(3, 3)] * 3,
        [],
    ]
    for inputs in wrong:
        done = called(file, inputs)
        assert done.returncode == 1
        if not inputs:  # which the operator has no device of
            assert done.stderr.startswith("InputError: block_0 was given 0 inputs\n")
            continue
        with pytest.raises(InputError) as caught:
            torch.ops.portrt.execute_engine(inputs, blobs, node.args[2])
        assert done.stderr == f"InputError: {caught.value}\n"


class Branches(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, lambda x: x + 1, lambda x: x.cumsum(0) - 1, (x,))


class Cut(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x * 2 + 1).cumsum(0) * 3 - 1


class Cache(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(4, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.rows.add_(x)
        return self.rows * 2


class Unused(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x * 2 + 1


class Number(nn.Module):
    def forward(self, x: torch.Tensor, count: int) -> torch.Tensor:
        return x * 2 + count


X = torch.randn(4, 3)
CUMSUM = {"torch_executed_ops": {"aten.cumsum"}}


@pytest.mark.parametrize(
    ("model", "inputs", "options", "reason"),
    [
        (Cut(), [X], CUMSUM, "it calls torch.ops.aten.cumsum.default, at 'cumsum'"),
        (Branches(), [X], CUMSUM, "it calls torch.ops.higher_order.cond, at 'cond'"),
        (Cache(), [X], {}, 'it has the buffer "b_rows" beside its engine'),
        (Unused(), [X, X], {}, "its engine takes the argument 'y' not once"),
        (Number(), [X, 3], {}, 'it has the constant_input "count" beside its engine'),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_what_cannot_run_is_refused_by_name(
    model: nn.Module, inputs: Any, options: Any, reason: str, called: Any, tmp_path: Path
) -> None:
    done = called(saved(tmp_path, model, *inputs, **options), [X])
    assert done.returncode == 1
    file = tmp_path / "model.pt2"
    begin = f"LoadError: '{file}' cannot run without torch: "
    assert done.stderr.startswith(begin)
    assert done.stderr.removeprefix(begin).startswith(reason)


def test_what_is_no_program_of_portrt(called: Any, tmp_path: Path) -> None:
    file = tmp_path / "model.pt2"
    assert "LoadError: " in called(file, [X]).stderr  # there is no file
    torch.export.save(torch.export.export(tiny.model(), (torch.ones(2, 8),)), file)
    assert "cannot run without torch: it calls torch.ops.aten.linear" in called(file, [X]).stderr
    whole = saved(tmp_path, tiny.model(), ROWS).read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert "LoadError: " in called(file, [X]).stderr
    file.write_bytes(whole)
    done = called(file, [torch.ones(3, 8)], PORTRT_ENGINES="tensorrt")
    assert "NoUsableEngineError: no engine of block_0 can run here" in done.stderr
    done = called(file, [torch.ones(3, 8)], PORTRT_ONNXRUNTIME_LIBRARY="/nowhere.so")
    assert "onnxruntime cannot be loaded: /nowhere.so" in done.stderr
