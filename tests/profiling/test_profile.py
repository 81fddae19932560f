"""profile: against wall clocks, ONNX Runtime asked by hand, and the source itself."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from tiny import shared

from portrt import files
from portrt.compiler.backends.onnxruntime.build import OnnxRuntimeBackend
from portrt.engines import node_times
from portrt.engines.base import LayerTime
from portrt.engines.eager import SourceSession
from portrt.engines.node_times import NodeTimes
from portrt.engines.onnxruntime.layer_times import read_trace
from portrt.engines.onnxruntime.session import OnnxRuntimeSession
from portrt.errors import EngineError, InputError, NoUsableEngineError, PackageError, SettingsError
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
    names = {node.name for node in source.graph.nodes if node.op == "call_function"}
    for found in (as_onnxruntime, as_eager):
        (block,) = found.blocks
        assert set(block.nodes) == names
        assert {name for layer in block.layers for name in layer.nodes} <= names
        assert 0.9 < block.mapped <= 1
    assert all(layer.nodes for layer in as_eager.blocks[0].layers)


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


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Threads that wait for each other on a busy machine would hide which layer is slow."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("engine", ["onnxruntime", "eager"])
def test_the_slow_layer_comes_first(wide: Path, engine: str) -> None:
    found = files.profile(wide, engine=engine, calls=CALLS)
    (block,) = found.blocks
    slowest = max(block.layers, key=lambda layer: layer.seconds)
    assert {block.nodes[name].module for name in slowest.nodes} >= {"huge"}
    assert len(block.layers) >= 3


@pytest.mark.parametrize(
    ("engine", "session"), [("onnxruntime", OnnxRuntimeSession), ("eager", SourceSession)]
)
def test_the_sum_of_the_layers_is_within_the_wall_time(
    wide: Path, engine: str, session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the calls that were profiled, on a clock of ours around them."""
    original: Callable[..., Any] = session.layer_times
    walls = []

    def timed(*args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        result = original(*args, **kwargs)
        walls.append(time.perf_counter() - started)
        return result

    monkeypatch.setattr(session, "layer_times", timed)
    # More calls than warm up, so that half of them at least are as long as the median.
    (block,) = files.profile(wide, engine=engine, calls=9).blocks
    (wall,) = walls
    # At least five of nine calls took the median or longer: for each layer.
    assert 0 < block.layers_seconds * 5 <= wall
    flops = 2 * 128 * 2048 * 2048
    assert block.layers_seconds > flops / 100e12  # a unit too small would show here


def test_warm_up_calls_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that runs ten times slower once the graph is warm."""
    ticks = iter(range(10**6))
    now = [0.0]

    def clock() -> float:
        now[0] += 100.0 if next(ticks) < 2 * node_times.WARM_UP else 1.0
        return now[0]

    monkeypatch.setattr(node_times.time, "perf_counter", clock)
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
    class Plain:
        """Runs, and no more."""

        def __init__(self, session: Any) -> None:
            self.run = session.run

    opened = OnnxRuntimeBackend.open
    monkeypatch.setattr(OnnxRuntimeBackend, "open", lambda *a, **k: Plain(opened(*a, **k)))
    (block,) = files.profile(encoder, calls=1).blocks
    assert block.layers == ()
    assert block.reason == "onnxruntime does not tell the times of its layers"
    assert block.call_seconds is not None
    assert block.call_seconds > 0


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
    assert 0 < block.mapped < 1


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
