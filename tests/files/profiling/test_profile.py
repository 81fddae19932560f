"""profile: against clocks that are told the time, ONNX Runtime asked by hand, and the source.

No measured time is compared with another: a busy machine would decide it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from tiny import shared

from portrt import files
from portrt.engines import node_times
from portrt.engines.base import LayerTime, Session
from portrt.engines.node_times import NodeTimes
from portrt.engines.onnxruntime import layer_times
from portrt.engines.onnxruntime.layer_times import read_trace
from portrt.engines.onnxruntime.runtime import OnnxRuntimeRuntime
from portrt.engines.onnxruntime.session import OnnxRuntimeSession
from portrt.errors import EngineError, InputError, NoUsableEngineError, PackageError, SettingsError
from portrt.files.profiling import measure
from portrt.files.profiling.result import BlockProfile
from portrt.runtime.select import FallbackWarning

CALLS = 5


@pytest.fixture(scope="module")
def as_onnxruntime(encoder: Path) -> files.FileProfile:
    return files.profile(encoder, calls=CALLS)


@pytest.fixture(scope="module")
def as_eager(encoder: Path) -> files.FileProfile:
    return files.profile(encoder, engine="eager", calls=CALLS)


@pytest.fixture(scope="module")
def source(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> torch.export.ExportedProgram:
    """The source, read by torch alone."""
    path = tmp_path_factory.mktemp("source") / "source.pt2"
    files.extract(encoder, "source", path)
    return torch.export.load(io.BytesIO(path.read_bytes()))


def operators(program: torch.export.ExportedProgram) -> list[str]:
    return [
        node.name for node in program.graph.nodes if isinstance(node.target, torch._ops.OpOverload)
    ]


def test_layers_are_the_nodes_of_the_optimized_graph(
    encoder: Path, as_onnxruntime: files.FileProfile, tmp_path: Path
) -> None:
    files.extract(encoder, "plan", tmp_path / "plan.onnx", engine="onnxruntime")
    files.extract(encoder, "weights", tmp_path / "weights.safetensors")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(
        str(tmp_path / "plan.onnx"), options, providers=["CPUExecutionProvider"]
    )
    wanted = onnx.load(tmp_path / "optimized.onnx").graph.node
    layers = as_onnxruntime.blocks[0].layers
    assert as_onnxruntime.blocks[0].backend == "onnxruntime"
    assert sorted((layer.name, layer.kind) for layer in layers) == sorted(
        (node.name, node.op_type) for node in wanted
    )


def test_fused_layers_have_the_nodes_that_were_fused(as_onnxruntime: files.FileProfile) -> None:
    (block,) = as_onnxruntime.blocks

    def operators(layer: LayerTime) -> list[str]:
        return [block.nodes[name].target.split(".")[1] for name in layer.nodes]

    kinds = ("BiasGelu", "SkipLayerNormalization", "Attention", "ReorderOutput")
    targets = {layer.kind: operators(layer) for layer in block.layers if layer.kind in kinds}
    assert targets["BiasGelu"] == ["linear", "gelu"]
    assert targets["SkipLayerNormalization"][-2:] == ["add", "layer_norm"]
    assert targets["Attention"] == ["scaled_dot_product_attention"]
    assert targets["ReorderOutput"] == []
    convolutions = [operators(layer) for layer in block.layers if layer.kind == "Conv"]
    assert convolutions == [["conv2d", "relu"], ["conv2d", "add", "relu"]]


def test_mapped_names_are_nodes_of_the_source(
    as_onnxruntime: files.FileProfile,
    as_eager: files.FileProfile,
    source: torch.export.ExportedProgram,
) -> None:
    """Every layer has some but those that ONNX Runtime puts between others, of its own."""
    names = {node.name for node in source.graph.nodes if node.op == "call_function"}
    for found in (as_onnxruntime, as_eager):
        (block,) = found.blocks
        assert set(block.nodes) == names
        assert {name for layer in block.layers for name in layer.nodes} <= names
    (block,) = as_onnxruntime.blocks
    assert {layer.kind for layer in block.layers if not layer.nodes} == {"ReorderOutput"}
    assert all(layer.nodes for layer in as_eager.blocks[0].layers)


def with_times(block: BlockProfile, seconds: Callable[[LayerTime], float]) -> BlockProfile:
    layers = tuple(replace(layer, seconds=seconds(layer)) for layer in block.layers)
    return replace(block, layers=layers)


def test_the_part_that_is_mapped_is_one_of_the_time(
    as_onnxruntime: files.FileProfile, as_eager: files.FileProfile
) -> None:
    (block,) = as_onnxruntime.blocks
    bare = sum(not layer.nodes for layer in block.layers)
    mapped = len(block.layers) - bare
    for times in ((1.0, 1.0), (1.0, 8.0), (0.0, 8.0), (1.0, 0.0)):
        made = with_times(block, lambda layer, times=times: times[bool(layer.nodes)])
        wanted = mapped * times[1] / (bare * times[0] + mapped * times[1])
        assert made.mapped == pytest.approx(wanted)
    assert with_times(block, lambda _: 0.0).mapped == 0
    assert with_times(as_eager.blocks[0], lambda _: 3.0).mapped == 1


def test_eager_layers_are_the_operators_of_the_source(
    as_eager: files.FileProfile, source: torch.export.ExportedProgram
) -> None:
    (block,) = as_eager.blocks
    assert block.backend == "eager"
    assert [layer.name for layer in block.layers] == operators(source)
    assert {layer.kind for layer in block.layers} >= {"aten.linear.default", "aten.conv2d.default"}


def test_what_stays_in_pytorch_is_there_with_its_line(as_onnxruntime: files.FileProfile) -> None:
    outside = as_onnxruntime.outside
    (nonzero,) = (layer for layer in outside.layers if layer.kind == "aten.nonzero.default")
    assert not any("execute_engine" in layer.kind for layer in outside.layers)
    line = outside.nodes[nonzero.name].line
    assert line.startswith("conftest.py:")
    assert line.endswith("count = torch.nonzero(image.sum((1, 2, 3)) > -1e9).shape[0]")


def test_modules_of_layers(as_eager: files.FileProfile) -> None:
    (block,) = as_eager.blocks
    by_kind = {layer.kind: block.module_of(layer) for layer in block.layers}
    assert by_kind["aten.scaled_dot_product_attention.default"] == "layer.self_attn"
    assert {block.module_of(layer) for layer in block.layers} >= {"conv", "conv_2", "head", ""}


def work(taken: int, given: int) -> int:
    """Microseconds that a linear layer shall take: its operations, say."""
    return 2 * taken * given + given


LAYERS = {"before": work(16, 2048), "huge": work(2048, 2048), "after": work(2048, 16)}


@pytest.fixture
def eager_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A linear layer takes its work, ten times as long while it warms up; all else no time."""
    now = [0.0]
    calls: dict[Any, int] = {}
    real = torch.fx.Interpreter.call_function

    def call_function(self: Any, target: Any, args: Any, kwargs: Any) -> Any:
        result = real(self, target, args, kwargs)
        if target is torch.ops.aten.linear.default:
            sizes = (args[0].shape[-1], result.shape[-1])
            calls[sizes] = calls.get(sizes, 0) + 1
            now[0] += work(*sizes) * (10 if calls[sizes] <= node_times.WARM_UP else 1) / 1e6
        return result

    monkeypatch.setattr(torch.fx.Interpreter, "call_function", call_function)
    clock = SimpleNamespace(perf_counter=lambda: now[0])
    monkeypatch.setattr(node_times, "time", clock)


@pytest.fixture
def onnxruntime_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same times, in the trace that ONNX Runtime wrote."""
    real = layer_times.read_trace

    def retold(trace: Path, *args: Any, **kwargs: Any) -> Any:
        events = json.loads(trace.read_text())
        calls: dict[str, int] = {}
        now = 0
        for event in sorted(events, key=lambda event: event["ts"]):
            event["ts"] = now
            if event["cat"] == "Node":
                calls[event["name"]] = calls.get(event["name"], 0) + 1
                (taken,) = event["args"]["input_type_shape"][0].values()
                (given,) = event["args"]["output_type_shape"][0].values()
                slow = 10 if calls[event["name"]] <= node_times.WARM_UP else 1
                event["dur"] = work(taken[-1], given[-1]) * slow
                now += event["dur"]
        trace.write_text(json.dumps(events))
        return real(trace, *args, **kwargs)

    monkeypatch.setattr(layer_times, "read_trace", retold)


@pytest.mark.parametrize("engine", ["onnxruntime", "eager"])
def test_each_layer_has_its_own_time(
    wide: Path, engine: str, request: pytest.FixtureRequest
) -> None:
    """In seconds, of the calls that do not warm up: fewer than those that do."""
    request.getfixturevalue(f"{engine}_clock")
    (block,) = files.profile(wide, engine=engine, calls=2).blocks
    found: dict[str, float] = {}
    for layer in block.layers:
        modules = {block.nodes[name].module for name in layer.nodes} - {""}
        for module in modules:
            found[module] = found.get(module, 0.0) + layer.seconds
    assert found == pytest.approx({name: us / 1e6 for name, us in LAYERS.items()})
    assert block.layers_seconds == pytest.approx(sum(LAYERS.values()) / 1e6)
    slowest = max(block.layers, key=lambda layer: layer.seconds)
    assert "huge" in {block.nodes[name].module for name in slowest.nodes}
    assert len(block.layers) >= 3


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_plain_call_takes_until_its_work_is_done(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU, whose work a call only begins: the clock goes on while it is waited for."""
    now, begun = [0.0], [0.0]
    costs = [*[100.0] * node_times.WARM_UP, 4.0, 1.0, 64.0, 2.0, 8.0]

    def run() -> None:
        now[0] += 0.5
        begun[0] += costs.pop(0)
        if device == "cpu":
            finish()

    def finish(_: Any = None) -> None:
        now[0] += begun[0]
        begun[0] = 0.0

    monkeypatch.setattr(measure, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(torch.cuda, "synchronize", finish)
    assert measure.seconds_per_call(run, torch.device(device), 5) == 4.5
    assert costs == []


def test_nodes_on_a_gpu_are_timed_by_events_around_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Events tell milliseconds, once the GPU has come to them."""
    now = [0.0]
    waited = [True]

    class Event:
        def __init__(self, *, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            waited[0] = False
            self.at = now[0]

        def elapsed_time(self, end: Event) -> float:
            assert waited[0]
            return end.at - self.at

    real = torch.fx.Interpreter.call_function
    costs = {torch.ops.aten.relu.default: 3.0, torch.ops.aten.neg.default: 40.0}

    def call_function(self: Any, target: Any, args: Any, kwargs: Any) -> Any:
        now[0] += costs[target]
        return real(self, target, args, kwargs)

    monkeypatch.setattr(torch.fx.Interpreter, "call_function", call_function)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: waited.__setitem__(0, True))
    graph = torch.fx.Graph()
    first = graph.call_function(torch.ops.aten.relu.default, (graph.placeholder("x"),))
    graph.output(graph.call_function(torch.ops.aten.neg.default, (first,)))
    times = NodeTimes(torch.fx.GraphModule({}, graph), torch.device("cuda"))
    for _ in range(3):
        times.run_once([torch.ones(2)])
    assert [(it.name, it.seconds) for it in times.layers()] == [
        ("relu_default", pytest.approx(0.003)),
        ("neg_default", pytest.approx(0.04)),
    ]


def test_warm_up_calls_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that runs ten times slower once the graph is warm."""
    ticks = iter(range(10**6))
    now = [0.0]

    def clock() -> float:
        now[0] += 100.0 if next(ticks) < 2 * node_times.WARM_UP else 1.0
        return now[0]

    monkeypatch.setattr(node_times, "time", SimpleNamespace(perf_counter=clock))
    graph = torch.fx.Graph()
    graph.output(graph.call_function(torch.ops.aten.relu.default, (graph.placeholder("x"),)))
    module = torch.fx.GraphModule({}, graph)
    times = NodeTimes(module, torch.device("cpu"))
    for call in range(node_times.WARM_UP + 4):
        if call == node_times.WARM_UP:
            times.forget()
        times.run_once([torch.ones(2)])
    (layer,) = times.layers()
    assert (layer.seconds, layer.detail) == (1.0, "float32 2")


def test_random_inputs_have_the_tuned_sizes(as_onnxruntime: files.FileProfile) -> None:
    (item,) = as_onnxruntime.inputs
    assert item == {"name": "x", "dtype": "float32", "shape": [4, 16, 32], "random": True}


def test_shapes_and_inputs_of_the_user(encoder: Path) -> None:
    found = files.profile(encoder, shapes={"x": (7, 16, 32)}, calls=1)
    assert found.inputs[0]["shape"] == [7, 16, 32]
    layers = {layer.kind: layer.detail for layer in found.blocks[0].layers}
    assert layers["Attention"].startswith("float 7x4x16x8")
    given = files.profile(encoder, [torch.ones(2, 16, 32)], calls=1)
    assert given.inputs == (
        {"name": "x", "dtype": "float32", "shape": [2, 16, 32], "random": False},
    )


def test_bad_requests(encoder: Path) -> None:
    for options, error, text in (
        ({"calls": 0}, SettingsError, "calls is 0"),
        ({"engine": "onnx"}, SettingsError, "onnx"),
        ({"shapes": {"y": (1,)}}, InputError, "'y'"),
        ({"shapes": {"x": (1,)}}, InputError, "3 sizes"),
        ({"shapes": {"x": (9, 16, 32)}}, InputError, "1 to 8"),
        ({"shapes": {"x": (0, 16, 32)}}, InputError, "1 to 8"),
        ({"inputs": []}, InputError, "0 inputs were given"),
        (
            {"inputs": [torch.ones(1, 16, 32)], "shapes": {"x": (1, 16, 32)}},
            SettingsError,
            "one of them",
        ),
        ({"engine": "tensorrt_rtx"}, NoUsableEngineError, "onnxruntime: no: the policy allows"),
    ):
        with pytest.raises(error, match=text):
            files.profile(encoder, **options)


def test_a_file_whose_source_was_stripped(encoder: Path, tmp_path: Path) -> None:
    files.strip(encoder, source=True, output=tmp_path / "a.pt2")
    (block,) = files.profile(tmp_path / "a.pt2", calls=1).blocks
    assert block.layers
    assert block.mapped == 0
    assert "the source was stripped" in block.reason


def test_a_damaged_source_is_not_read(encoder: Path, tmp_path: Path) -> None:
    from portrt.format.archive import Archive, engine_calls

    (call,) = engine_calls(Archive(encoder))
    assert call.manifest.source is not None
    content = bytearray(encoder.read_bytes())
    content[call.blobs[call.manifest.source.index].offset + 99] ^= 1
    (tmp_path / "a.pt2").write_bytes(content)
    with pytest.raises(PackageError, match="the source of block_0 is damaged"):
        files.profile(tmp_path / "a.pt2", calls=1)


def test_a_session_without_times(encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Plain(Session):
        """Runs, and no more."""

        def __init__(self, session: Any) -> None:
            self._session = session

        def run(self, inputs: Any, shapes: Any) -> Any:
            return self._session.run(inputs, shapes)

    opened = OnnxRuntimeRuntime.open
    monkeypatch.setattr(OnnxRuntimeRuntime, "open", lambda *a, **k: Plain(opened(*a, **k)))
    monkeypatch.setattr(measure, "seconds_per_call", lambda run, *_: (run(), 0.25)[1])
    (block,) = files.profile(encoder, calls=1).blocks
    assert block.layers == ()
    assert block.reason == "onnxruntime does not report the times of its layers"
    assert block.call_seconds == 0.25


def test_a_profiler_that_fails_is_an_error_in_words(
    encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no counters")

    monkeypatch.setattr(OnnxRuntimeSession, "layer_times", fail)
    with pytest.raises(EngineError, match="profiler of onnxruntime failed in block_0: no counters"):
        files.profile(encoder, calls=1)


@pytest.mark.parametrize("text", ["", "[", "{}", "[1]", '[{"cat":"Node"}]', '[{"name":[]}]'])
def test_a_trace_that_cannot_be_read(text: str, tmp_path: Path) -> None:
    (tmp_path / "trace").write_text(text)
    if text == "{}":
        assert read_trace(tmp_path / "trace", tmp_path, b"", skip=0) == []
        return
    with pytest.raises(EngineError, match="trace that cannot be read"):
        read_trace(tmp_path / "trace", tmp_path, b"", skip=0)


def test_a_node_within_a_node_is_counted_once(tmp_path: Path) -> None:
    def event(name: str, begin: int, microseconds: int) -> dict[str, Any]:
        told = {"op_name": name, "output_type_shape": [{"float": [2]}], "provider": "XProvider"}
        place = {"pid": 1, "tid": 1, "ts": begin, "dur": microseconds, "ph": "X"}
        return {"cat": "Node", "name": f"{name}_kernel_time", "args": told, **place}

    events = [event("inner", 12, 5), event("loop", 10, 20), event("next", 30, 3)]
    (tmp_path / "trace").write_text(json.dumps(events))
    found = read_trace(tmp_path / "trace", tmp_path, b"", skip=0)
    assert [(layer.name, layer.seconds) for layer in found] == [("loop", 2e-5), ("next", 3e-6)]


def test_nothing_is_left_behind(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tempfile

    (tmp_path / "temporary").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.chdir(tmp_path / "here")
    files.profile(encoder, calls=1)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert list((tmp_path / "temporary").iterdir()) == []


def test_without_a_place_for_the_graph_names_are_all_that_is_known(
    encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a system without links."""

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    (block,) = files.profile(encoder, calls=1).blocks
    nodes = {layer.kind: layer.nodes for layer in block.layers}
    assert nodes["Attention"] == ("scaled_dot_product_attention",)
    assert nodes["BiasGelu"] == ()
    named = sum(bool(layer.nodes) for layer in block.layers)
    assert with_times(block, lambda _: 1.0).mapped == pytest.approx(named / len(block.layers))


def test_the_json_has_everything(as_onnxruntime: files.FileProfile) -> None:
    raw = json.loads(json.dumps(as_onnxruntime.to_json(), allow_nan=False))
    assert raw["file"] == "encoder.pt2"
    assert raw["calls"] == CALLS
    assert raw["machine"]["onnxruntime"] == f"ONNX Runtime {onnxruntime.__version__}"
    (block,) = raw["blocks"]
    total = sum(layer["seconds"] for layer in block["layers"])
    assert block["layers_seconds"] == pytest.approx(total)
    assert {"name", "kind", "seconds", "nodes", "detail", "module"} == set(block["layers"][0])
    assert set(block["nodes"]["layer_norm"]) == {"target", "module", "line"}
    assert raw["outside"]["call_seconds"] is None


def test_a_fallback_is_said_and_one_that_was_asked_for_is_not(tmp_path: Path) -> None:
    """Warnings are errors here: the second call passes because there is none."""
    torch.export.save(shared("tensorrt_rtx"), tmp_path / "a.pt2")
    with pytest.warns(FallbackWarning):
        assert files.profile(tmp_path / "a.pt2", calls=1).blocks[0].backend == "eager"
    assert files.profile(tmp_path / "a.pt2", engine="eager", calls=1).blocks[0].layers
