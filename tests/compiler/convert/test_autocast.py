"""precision: float32 models in float16 and bfloat16 engines, against float32 in PyTorch."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import tiny
import torch
from click.testing import CliRunner
from onnx import TensorProto, helper
from torch import nn
from torch.nn import functional

import portrt
from portrt.cli import cli
from portrt.compiler.backends import registry
from portrt.compiler.backends.onnxruntime.rewrites.widen_bfloat16 import (
    widen_bfloat16,
    widen_float16,
)
from portrt.compiler.convert import NEWEST_OPSET, OnnxModel, onnx_from_block, translation
from portrt.compiler.convert.autocast import FOLLOWING, LOWERED, AutocastRules, autocast
from portrt.compiler.lower import lower
from portrt.compiler.options.settings import Settings
from portrt.compiler.partition import partition
from portrt.compiler.plan import Plan
from portrt.errors import CheckError, NoUsableEngineError
from portrt.graphs.module_path import ModulePath
from portrt.weights import WeightsImage, image_from_tensors

RTX = registry.builder("tensorrt_rtx").can_build()
needs_tensorrt_rtx = pytest.mark.skipif(not RTX, reason=str(RTX))

ELEMENT_TYPES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
TOLERANCES = {"fp16": 5e-3, "bf16": 4e-2}


class Encoder(nn.Module):
    """Convolution, norms, attention with a mask of the lowest float32, softmax, an index."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv1d(16, 16, 3, padding=1)
        self.norm = nn.BatchNorm1d(16)
        self.first, self.second = nn.Linear(32, 64), nn.Linear(64, 32)
        self.qkv = nn.Linear(32, 96)
        self.last = nn.LayerNorm(32)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = functional.relu(self.norm(self.conv(x)))
        q, k, v = self.qkv(x).view(-1, 16, 3, 2, 16).permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = self.last(x + y.transpose(1, 2).flatten(2))
        x = x + self.second(functional.gelu(self.first(x)))
        return x, torch.softmax(x.mean(1), -1), torch.exp(x).sum(-1), (x > 0)


LOWEST = torch.finfo(torch.float32).min
X = torch.randn(2, 16, 32, generator=torch.Generator().manual_seed(0))
MASK = torch.triu(torch.full((16, 16), LOWEST), 1)


def planned(model: nn.Module, *args: torch.Tensor) -> Plan:
    program = torch.export.export(model.eval(), args)
    return partition(lower(program), Settings(min_block_size=1), translation)


def converted(plan: Plan, rules: AutocastRules, opset: int = NEWEST_OPSET) -> OnnxModel:
    (block,) = plan.blocks
    image = WeightsImage(image_from_tensors(plan.tensors))
    model = onnx_from_block(block, plan.tensors, image, opset)
    return autocast(model, rules, lambda name: float(plan.tensors[name].detach().abs().max()))


def run(plan: Plan, model: OnnxModel, data: bytes, **inputs: torch.Tensor) -> dict[str, Any]:
    """By ONNX Runtime, without anything of ours."""
    options = onnxruntime.SessionOptions()
    values = [
        onnxruntime.OrtValue.ortvalue_from_numpy(plan.tensors[name].detach().contiguous().numpy())
        for name in model.weights
    ]
    options.add_external_initializers(list(model.weights), values)
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_outputs()]
    feeds = {name: value.numpy() for name, value in inputs.items()}
    return dict(zip(names, session.run(None, feeds), strict=True))


def types_of(model: OnnxModel | bytes) -> dict[str, list[int]]:
    """Operator -> the element type of the first input of each of its nodes."""
    data = model.data if isinstance(model, OnnxModel) else model
    graph = onnx.shape_inference.infer_shapes(onnx.ModelProto.FromString(data)).graph
    values = [*graph.input, *graph.value_info, *graph.output]
    known = {value.name: value.type.tensor_type.elem_type for value in values}
    known |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    found: dict[str, list[int]] = {}
    for node in graph.node:
        found.setdefault(node.op_type, []).append(known[node.input[0]])
    return found


def test_the_lists_hold_operators_of_onnx() -> None:
    for name in LOWERED | FOLLOWING:
        if name != "Gelu":  # since opset 20
            assert onnx.defs.has(name), name
    assert not LOWERED & FOLLOWING


@pytest.mark.parametrize("opset", [22, NEWEST_OPSET])
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_numbers_are_those_of_float32_within_the_precision(precision: str, opset: int) -> None:
    model = Encoder().eval()
    plan = planned(model, X, MASK)
    made = converted(plan, AutocastRules(precision), opset)
    # ONNX Runtime alone would not round between float16 operators.
    data = {"fp16": widen_float16, "bf16": widen_bfloat16}[precision](made.data)
    found = run(plan, made, data, x=X, mask=MASK)
    with torch.no_grad():
        names = [spec.name for spec in plan.blocks[0].outputs]
        wanted = dict(zip(names, model(X, MASK), strict=True))
    assert set(found) == set(wanted)
    differences = []
    for name in names[:3]:
        assert found[name].dtype == np.float32
        difference = np.abs(found[name] - wanted[name].numpy()).max()
        differences.append(difference / wanted[name].abs().max())
    assert max(differences) < TOLERANCES[precision]
    assert max(differences) > 1e-5  # it was not simply float32
    assert found[names[3]].dtype == np.bool_
    assert (found[names[3]] == wanted[names[3]].numpy()).mean() > 0.98


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_products_are_lowered_and_norms_softmax_and_sums_are_not(precision: str) -> None:
    types = types_of(converted(planned(Encoder(), X, MASK), AutocastRules(precision), 22))
    for operator in ("MatMul", "Conv", "Gelu"):
        assert set(types[operator]) == {ELEMENT_TYPES[precision]}, operator
    kept = ("Softmax", "LayerNormalization", "ReduceMean", "ReduceSum", "Exp")
    for operator in kept:
        assert set(types[operator]) == {TensorProto.FLOAT}, operator


def test_inputs_outputs_and_stored_weights_keep_their_dtypes() -> None:
    plan = planned(Encoder(), X, MASK)
    made = converted(plan, AutocastRules("fp16"))
    graph = onnx.ModelProto.FromString(made.data).graph
    assert {value.type.tensor_type.elem_type for value in graph.input} == {TensorProto.FLOAT}
    assert [value.type.tensor_type.elem_type for value in graph.output] == [
        *[TensorProto.FLOAT] * 3,
        TensorProto.BOOL,
    ]
    large = [tensor for tensor in graph.initializer if tensor.name in plan.tensors]
    assert {tensor.data_type for tensor in large} == {TensorProto.FLOAT}
    assert len(made.data) < 20_000  # no weight was copied into the graph
    assert set(made.weights) <= set(plan.tensors)


@pytest.mark.parametrize(
    ("rules", "kept"),
    [
        ({"excluded_modules": ["first"]}, 1),
        ({"excluded_modules": ["fir*", "second"]}, 2),
        ({"excluded_modules": ["torch.nn.modules.linear.Linear"]}, 3),
        ({"excluded_modules": ["elsewhere"]}, 0),
        ({"excluded_ops": frozenset({"aten.linear"})}, 3),
        ({"excluded_ops": frozenset({"aten.linear.default"})}, 3),
    ],
    ids=str,
)
def test_what_is_excluded_stays_in_float32(rules: Any, kept: int) -> None:
    plan = planned(Encoder(), X, MASK)
    types = types_of(converted(plan, AutocastRules("fp16", **rules)))
    assert types["MatMul"].count(TensorProto.FLOAT) == kept
    assert types["MatMul"].count(TensorProto.FLOAT16) == 3 - kept


def test_a_module_inside_an_excluded_one_is_excluded() -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(8, 8), nn.ReLU()), nn.Linear(8, 8))
    plan = planned(model, torch.randn(2, 8))
    types = types_of(converted(plan, AutocastRules("fp16", ["0"])))
    products = types.get("MatMul", []) + types.get("Gemm", [])
    assert sorted(products) == [TensorProto.FLOAT, TensorProto.FLOAT16]


def test_weights_beyond_float16_stay_in_float32() -> None:
    class Large(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(16, 16), nn.Linear(16, 16)
            with torch.no_grad():
                self.first.weight[0, 0] = 1e6

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(torch.tanh(self.first(x))) + torch.where(x > 0, x, -1e30)

    model, x = Large().eval(), torch.rand(3, 16) + 0.1
    compiled = portrt.compile(model, inputs=[x], engines="onnxruntime", precision="fp16")
    torch.testing.assert_close(compiled(x), model(x).detach(), rtol=1e-2, atol=1e-2)
    types = types_of(converted(planned(model, x), AutocastRules("fp16")))
    assert sorted(types["Gemm"]) == [TensorProto.FLOAT, TensorProto.FLOAT16]
    assert types["Where"] == [TensorProto.BOOL]


def test_graphs_inside_a_node_find_their_values_in_float32() -> None:
    """y = x @ w; if any(y > 1e9) then y + 1 else y * 2, all of float32 in the branches."""
    value = helper.make_tensor_value_info

    def branch(name: str, node: onnx.NodeProto) -> onnx.GraphProto:
        return helper.make_graph([node], name, [], [value(name, TensorProto.FLOAT, [2, 4])])

    one = helper.make_tensor("one", TensorProto.FLOAT, [], [1.0])
    weight = np.arange(16, dtype=np.float32).reshape(4, 4)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"], name="node_y"),
        helper.make_node("ReduceSum", ["y"], ["s"], keepdims=0, name="node_s"),
        helper.make_node("Less", ["s", "one"], ["c"], name="node_c"),
        helper.make_node(
            "If",
            ["c"],
            ["z"],
            name="node_z",
            then_branch=branch("a", helper.make_node("Add", ["y", "one"], ["a"])),
            else_branch=branch("b", helper.make_node("Mul", ["y", "y"], ["b"])),
        ),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.FLOAT, [2, 4])],
        [value("z", TensorProto.FLOAT, [2, 4]), value("y", TensorProto.FLOAT, [2, 4])],
        [helper.make_tensor("w", TensorProto.FLOAT, [4, 4], weight.flatten()), one],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    model = OnnxModel(proto.SerializeToString(), (), 21, 4)
    made = autocast(model, AutocastRules("fp16"), lambda _: 0.0)
    onnx.checker.check_model(onnx.ModelProto.FromString(made.data), full_check=True)
    session = onnxruntime.InferenceSession(made.data, providers=["CPUExecutionProvider"])
    for x in (np.ones((2, 4), np.float32), -np.ones((2, 4), np.float32)):
        z, y = session.run(None, {"x": x})
        want = x @ weight
        np.testing.assert_allclose(y, want, rtol=1e-3)
        np.testing.assert_allclose(z, want + 1 if want.sum() < 1 else want * want, rtol=1e-3)


def test_converting_twice_gives_the_same_bytes() -> None:
    made = [converted(planned(Encoder(), X, MASK), AutocastRules("fp16")).data for _ in range(2)]
    assert made[0] == made[1]


# ---- through compile ----------------------------------------------------------------------------


def compiled(path: Path, **options: Any) -> list[Any]:
    """The engines of the only block of the encoder's file."""
    program = portrt.compile(
        Encoder().eval(), inputs=[X, MASK], output_format="exported_program", **options
    )
    portrt.save(program, path)
    (block,) = portrt.inspect(path).blocks
    return list(block.engines)


def test_a_saved_engine_says_its_precision_and_its_error(tmp_path: Path) -> None:
    path = tmp_path / "a.pt2"
    (engine,) = compiled(path, engines="onnxruntime", precision="fp16")
    assert engine["build"]["precision"] == "fp16"
    rows = engine["check"]["outputs"]
    assert all(row["ok"] for row in rows)
    assert 1e-5 < rows[0]["max_rel"] < 5e-3
    assert rows[0]["tolerance"] == 2e-2
    with torch.no_grad():
        found, wanted = portrt.load(path).module()(X, MASK), Encoder().eval()(X, MASK)
    torch.testing.assert_close(found[0], wanted[0], rtol=1e-2, atol=1e-2)
    assert portrt.files.verify(path).ok


def test_without_a_precision_the_models_own_is_said(tmp_path: Path) -> None:
    (engine,) = compiled(tmp_path / "a.pt2", engines="onnxruntime")
    assert engine["build"]["precision"] == "fp32"
    assert max(row["max_rel"] for row in engine["check"]["outputs"]) < 1e-5


def test_weights_are_stored_once(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 256)).eval()
    x = torch.randn(2, 256)
    sizes = []
    for precision in (None, "fp16"):
        path = tmp_path / f"{precision}.pt2"
        program = portrt.compile(
            model,
            inputs=[x],
            engines="onnxruntime",
            min_block_size=1,
            precision=precision,
            output_format="exported_program",
        )
        portrt.save(program, path)
        sizes.append(path.stat().st_size)
    assert abs(sizes[1] - sizes[0]) < 10_000  # one float16 copy would be 262,144 bytes


def test_bfloat16_on_a_cpu_stays_in_float32_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (engine,) = compiled(tmp_path / "a.pt2", engines="onnxruntime", precision="bf16")
    assert engine["build"]["precision"] == "fp32"
    assert "no bfloat16 kernels" in engine["build"]["precision_reason"]
    assert "no bfloat16 kernels" in caplog.text
    assert max(row["max_rel"] for row in engine["check"]["outputs"]) < 1e-5


class Overflowing(nn.Module):
    """Its products leave float16, its answer does not."""

    def __init__(self) -> None:
        super().__init__()
        self.small, self.scale = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
        with torch.no_grad():
            self.scale.weight.fill_(1000.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.scale(self.scale(self.small(x))) * 1e-7)


class Cancelling(nn.Module):
    """It adds a large number and takes it away again: float16 has no room for what is between."""

    def __init__(self) -> None:
        super().__init__()
        self.offset = nn.Linear(8, 8)
        with torch.no_grad():
            self.offset.bias.fill_(1000.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.offset(x) - 1000.0) * 3


def rounded_to_float16(x: torch.Tensor, layer: nn.Linear) -> torch.Tensor:
    assert layer.bias is not None
    product = functional.linear(x.half(), layer.weight.half(), layer.bias.half())
    return ((product - 1000.0) * 3).float()


def test_what_overflows_on_the_sample_stays_in_float32(caplog: pytest.LogCaptureFixture) -> None:
    model, x = Overflowing().eval(), torch.rand(4, 8)
    options: dict[str, Any] = {"inputs": [x], "engines": "onnxruntime", "min_block_size": 1}
    with caplog.at_level(logging.INFO, logger="portrt"):
        program = portrt.compile(
            model, precision="fp16", output_format="exported_program", **options
        )
    assert "in float32 as their values are large: linear_2" in caplog.text
    torch.testing.assert_close(program.module()(x), model(x).detach(), rtol=1e-2, atol=1e-3)
    call = tiny.call_of(program)
    types = types_of(call.blobs[call.engine("onnxruntime")["data"]["blob"]].numpy().tobytes())
    products = [t for name in ("Gemm", "MatMul", "FusedMatMul") for t in types.get(name, [])]
    assert sorted(products) == [TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.FLOAT16]


@needs_tensorrt_rtx
def test_a_precision_that_is_too_low_is_caught_without_a_gpu(tmp_path: Path) -> None:
    model, x = Cancelling().eval(), torch.rand(4, 8)
    options: dict[str, Any] = {"inputs": [x], "engines": "tensorrt_rtx", "precision": "fp16"}
    options |= {"min_block_size": 1, "output_format": "exported_program"}
    with pytest.raises(CheckError, match="rounded to fp16 as the tensorrt_rtx engine") as caught:
        portrt.compile(model, **options)
    assert "autocast_excluded_modules" in caught.value.remedy

    path = tmp_path / "a.pt2"
    portrt.save(portrt.compile(model, check="accept", **options), path)
    (engine,) = portrt.inspect(path).blocks[0].engines
    (row,) = engine["check"]["simulated"]
    wrong = (rounded_to_float16(x, model.offset) - model(x)).abs().max().item()
    assert row["max_abs"] == pytest.approx(wrong, rel=0.01)
    assert row["ok"] is False

    portrt.save(portrt.compile(model, autocast_excluded_modules="offset", **options), path)
    (engine,) = portrt.inspect(path).blocks[0].engines
    assert engine["check"]["simulated"][0]["ok"] is True
    assert "cpu" in engine["check"]["skipped"]


def test_an_engine_can_have_a_precision_of_its_own(tmp_path: Path) -> None:
    engines = compiled(
        tmp_path / "a.pt2",
        engines=[{"backend": "onnxruntime", "precision": "fp16"}, "onnxruntime"],
    )
    assert [engine["build"]["precision"] for engine in engines] == ["fp16", "fp32"]


def test_an_engine_is_added_to_a_file_in_another_precision(tmp_path: Path) -> None:
    """The source in the file still knows which module each operator came from."""
    path = tmp_path / "a.pt2"
    compiled(path, engines="onnxruntime")
    portrt.files.add_engine(path, "onnxruntime", precision="fp16")
    portrt.files.add_engine(
        path,
        "onnxruntime",
        precision="fp16",
        autocast_excluded_modules=["torch.nn.*"],
        autocast_excluded_ops=["aten.scaled_dot_product_attention"],
    )
    (block,) = portrt.inspect(path).blocks
    worst = [max(row["max_rel"] for row in e["check"]["outputs"]) for e in block.engines]
    assert [e["build"]["precision"] for e in block.engines] == ["fp32", "fp16", "fp16"]
    assert worst[1] > 1e-5
    assert worst[2] < 1e-5


def test_an_added_engine_has_the_precision_of_the_stored_one(tmp_path: Path) -> None:
    path = tmp_path / "a.pt2"
    options = {"precision": "fp16", "autocast_excluded_modules": ["layer.*", "no.such"]}
    compiled(path, engines="onnxruntime", **options)
    portrt.files.add_engine(path, "onnxruntime")
    portrt.files.add_engine(path, "onnxruntime", precision=None)
    portrt.files.add_engine(path, {"backend": "onnxruntime", "precision": "fp16"})
    stored, alike, whole, other = portrt.inspect(path).blocks[0].engines
    assert [e["build"]["precision"] for e in (stored, alike, whole)] == ["fp16", "fp16", "fp32"]
    assert alike["build"]["autocast"] == stored["build"]["autocast"]
    assert alike["build"]["autocast"]["autocast_excluded_modules"] == ["layer.*", "no.such"]
    assert "autocast" not in whole["build"]
    assert other["build"]["autocast"]["autocast_excluded_modules"] == []


def test_a_precision_that_one_backend_lacks_is_that_of_an_engine_of_another(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.pt2"
    (stored,) = compiled(path, engines="onnxruntime", precision="bf16")
    assert stored["build"]["precision"] == "fp32"
    shown = CliRunner(env={"COLUMNS": "300"}).invoke(cli, ["inspect", str(path)]).output
    assert "bf16 requested" in " ".join(shown.split())
    if RTX:
        portrt.files.add_engine(path, "tensorrt_rtx", check="accept")
        added = portrt.inspect(path).blocks[0].engines[1]
        assert added["build"]["precision"] == "bf16"


def test_a_rebuilt_engine_has_the_precision_of_the_stored_one(tmp_path: Path) -> None:
    path = tmp_path / "a.pt2"
    compiled(path, engines="onnxruntime", precision="fp16")

    def rebuilt(autocast: Any) -> float:
        """How far it is from float32; the stored engine asks for an ONNX Runtime of the future."""
        call = tiny.call_of(portrt.load(path))

        def edit(entry: dict[str, Any]) -> None:
            entry["engines"][0]["requires"]["onnxruntime"] = "99.0"
            entry["engines"][0]["build"]["autocast"] = autocast

        with portrt.runtime.policy(rebuild="missing", fallback="error", engines="onnxruntime"):
            found = call.edited(edit)(X, MASK)[0]
        return float((found - wanted).abs().max() / wanted.abs().max())

    asked = tiny.call_of(portrt.load(path)).entry["engines"][0]["build"]["autocast"]
    with torch.no_grad():
        wanted = Encoder().eval()(X, MASK)[0]
    assert 1e-5 < rebuilt(asked) < 1e-2  # float16, or the source would have run
    ops = ["aten.scaled_dot_product_attention"]
    more = {"autocast_excluded_modules": ["torch.nn.*"], "autocast_excluded_ops": ops}
    assert rebuilt({**asked, **more}) < 1e-5
    with pytest.raises(NoUsableEngineError, match="built with autocast 'a lot'"):
        rebuilt("a lot")


def test_a_model_without_float32_is_left_as_it_is(tmp_path: Path) -> None:
    model, x = nn.Linear(8, 8).half().eval(), torch.randn(2, 8).half()
    program = portrt.compile(
        model,
        inputs=[x],
        engines="onnxruntime",
        precision="bf16",
        min_block_size=1,
        output_format="exported_program",
    )
    portrt.save(program, tmp_path / "a.pt2")
    (engine,) = portrt.inspect(tmp_path / "a.pt2").blocks[0].engines
    assert engine["build"]["precision"] == "fp16"


@needs_tensorrt_rtx
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_tensorrt_rtx_builds_it_with_fused_attention(
    precision: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="portrt"):
        lowered, whole = compiled(
            tmp_path / "a.pt2",
            engines=[{"backend": "tensorrt_rtx", "precision": precision}, "tensorrt_rtx"],
            require_engines=True,
        )
    assert [e["build"]["precision"] for e in (lowered, whole)] == [precision, "fp32"]
    # Float32 attention has no fused kernel, and is built from products.
    assert [e["build"]["opset"] for e in (lowered, whole)] == [23, 22]
    assert lowered["sha256"] != whole["sha256"]
    assert f"bytes, {precision}, relative difference" in caplog.text
    row = lowered["check"]["simulated"][0]
    assert row["ok"]
    assert 1e-5 < row["max_rel"] < TOLERANCES[precision]
    assert "simulated" not in whole["check"]


# ---- paths of modules ---------------------------------------------------------------------------


def test_paths_of_strict_and_other_exports_are_the_same() -> None:
    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layers[1](self.layers[0](x).relu())

    for strict in (False, True):
        program = lower(torch.export.export(Holder(), (torch.ones(1, 4),), strict=strict))
        calls = [node for node in program.graph.nodes if node.op == "call_function"]
        paths = [ModulePath.of(node.meta).innermost for node in calls]
        assert paths == ["layers.0", "", "layers.1"]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("layers.0", True),
        ("layers.0.attention", True),
        ("layers.*.attention", True),
        ("layers.0.attention.out", False),
        ("attention", False),
        ("*.attention", True),
        ("model.Attention", True),
        ("Attention", False),
    ],
)
def test_patterns_name_paths_and_classes(pattern: str, found: bool) -> None:
    path = ModulePath(("layers.0", "layers.0.attention"), ("model.Layer", "model.Attention"))
    assert (path.match([pattern]) == pattern) is found
