"""Engines as bytes, with names of bindings; an onnxruntime engine shows the names to onnx."""

from __future__ import annotations

from typing import Any

import onnx
import pytest
import torch
from tiny import Mlp
from torch import nn
from torch.export import Dim

import portrt.torch_tensorrt as torch_tensorrt
from portrt.errors import PartitionError, SettingsError

convert = torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine


class Several(nn.Module):
    """Nested arguments, two results, and an input with the name of a Python builtin."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, input: Any, pair: Any, *, scale: torch.Tensor) -> dict[str, torch.Tensor]:  # noqa: A002
        return {"a": self.linear(input) + pair["k"], "b": torch.relu(input) * scale}


@pytest.fixture(scope="module")
def program() -> torch.export.ExportedProgram:
    n = Dim("n", max=16)
    args = (torch.randn(3, 8), {"k": torch.randn(3, 8)})
    shapes = {"input": {0: n}, "pair": {"k": {0: n}}, "scale": {0: n}}
    return torch.export.export(
        Several().eval(), args, {"scale": torch.randn(3, 8)}, dynamic_shapes=shapes
    )


def names(data: bytes) -> tuple[list[str], list[str]]:
    graph = onnx.load_from_string(data).graph
    return [item.name for item in graph.input], [item.name for item in graph.output]


@pytest.mark.parametrize(
    ("given", "inputs", "outputs"),
    [
        ({}, ["input", "pair_k", "scale"], None),
        (
            {
                "arg_input_binding_names": ("x", {"k": "input"}),
                "kwarg_input_binding_names": {"scale": "pair_k"},
            },
            ["x", "input", "pair_k"],
            None,
        ),
        ({"output_binding_names": {"a": "relu", "b": "linear"}}, None, ["relu", "linear"]),
        (
            {
                "arg_input_binding_names": ["a", {"k": "b"}],
                "kwarg_input_binding_names": {"scale": "linear"},
                "output_binding_names": ("logits", "scores"),
            },
            ["a", "b", "linear"],
            ["logits", "scores"],
        ),
    ],
)
def test_bindings_have_the_names(program: Any, given: Any, inputs: Any, outputs: Any) -> None:
    found = names(convert(program, engines="onnxruntime", **given))
    assert inputs in (None, found[0])
    assert outputs in (None, found[1])


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"arg_input_binding_names": ("x",)}, "3 different names"),
        ({"arg_input_binding_names": ("x", {"k": None}, "y")}, "3 different names"),
        ({"output_binding_names": ("a", "a")}, "2 different names"),
        ({"output_binding_names": ("a", 3)}, "2 different names"),
        ({"output_binding_names": ("a", "in")}, "no keywords of Python"),
        ({"output_binding_names": ("a", "b/c:0")}, "are identifiers"),
        ({"output_binding_names": ("input", "b")}, "names that no input or weight has"),
    ],
)
def test_wrong_names_are_an_error(program: Any, given: Any, error: str) -> None:
    with pytest.raises(SettingsError, match=error):
        convert(program, engines="onnxruntime", **given)


class Updates(nn.Module):
    """Its engine returns the new numbers of a buffer, too; the second argument is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("sum", torch.zeros(2, 8))

    def forward(self, x: torch.Tensor, n: Any, y: torch.Tensor) -> torch.Tensor:
        self.sum.add_(x)
        return torch.relu(self.sum) * y + (n or 0)


@pytest.mark.parametrize("given", [["a", None, "b"], ["a", "b"]])
@pytest.mark.parametrize("n", [None, 3])
def test_updates_and_arguments_that_are_no_tensors_need_no_names(given: Any, n: Any) -> None:
    x = torch.randn(2, 8)
    program = torch.export.export(Updates().eval(), (x, n, x + 1))
    found = names(
        convert(
            program, engines="onnxruntime", arg_input_binding_names=given, output_binding_names="c"
        )
    )
    assert {"a", "b"} <= set(found[0])
    assert found[1][-1] == "c"
    assert len(found[1]) == 2


def test_one_result_twice_has_one_name() -> None:
    class Twice(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            y = torch.relu(x)
            return y, y

    twice = torch.export.export(Twice().eval(), (torch.randn(2, 8),))
    with pytest.raises(SettingsError, match="the engine has the outputs"):
        convert(twice, engines="onnxruntime", output_binding_names=("a", "b"))


def test_an_engine_of_tensorrt(program: Any) -> None:
    x = torch_tensorrt.Input(min_shape=(1, 8), opt_shape=(2, 8), max_shape=(4, 8))
    made = torch_tensorrt.convert_method_to_trt_engine(
        Mlp().eval(), inputs=x, output_binding_names="LOGITS", arg_input_binding_names=("TOKENS",)
    )
    assert isinstance(made, bytes)
    assert b"LOGITS" in made
    assert len(convert(program, (torch_tensorrt.Input((3, 8)), {"k": torch.ones(3, 8)}))) > 1000


def test_options_that_say_how_the_result_is_given(
    program: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[torch.fx.GraphModule] = []
    given: dict[str, Any] = {"engines": "onnxruntime", "output_format": "module"}
    made = convert(program, passes=seen.append, output_binding_names=("p", "q"), **given)
    assert names(made)[1] == ["p", "q"]
    assert len(seen) == 1
    assert convert(program, dryrun=True, **given) == b""
    assert "Nothing was built" in capsys.readouterr().out


def test_names_are_no_hit_of_the_cache(program: Any, tmp_path: Any) -> None:
    given: dict[str, Any] = {"engines": "onnxruntime", "engine_cache_dir": tmp_path}
    for one in ("first", "second", "first"):
        found = names(convert(program, output_binding_names=(one, "b"), **given))
        assert found[1] == [one, "b"]


def test_what_is_no_single_engine_is_an_error(program: Any) -> None:
    class Nonzero(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.svdvals(torch.relu(x))

    with pytest.raises(PartitionError):
        torch_tensorrt.convert_method_to_trt_engine(
            Nonzero(), inputs=torch.ones(2, 2), engines="onnxruntime"
        )
    with pytest.raises(SettingsError, match="method_name is 'generate'"):
        torch_tensorrt.convert_method_to_trt_engine(Mlp(), "generate", inputs=torch.ones(2, 8))
