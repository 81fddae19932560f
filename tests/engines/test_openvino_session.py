"""Sessions of OpenVINO: threads, forks, files, memory, and hostile bytes."""

from __future__ import annotations

import os
import signal
import threading
import traceback
import warnings
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import nn

import portrt
from portrt.engines.openvino.runtime import OpenVINORuntime
from portrt.errors import EngineError, OutOfProfileError
from portrt.format.manifest import Blob, EngineSpec, decode
from portrt.format.signature import InputSpec, OutputSpec, Signature
from portrt.runtime.calls import manifests_of
from portrt.weights import WeightsImage, image_from_tensors

openvino = pytest.importorskip("openvino", reason="openvino is not installed")


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64)).eval()


@pytest.fixture(scope="module")
def file(model: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("openvino") / "model.pt2"
    program = portrt.compile(
        model,
        inputs=[torch.zeros(4, 64)],
        engines=["openvino", "onnxruntime"],
        min_block_size=1,
        output_format="exported_program",
    )
    portrt.save(program, path)
    return path


def test_a_file_runs_in_threads(model: nn.Module, file: Path) -> None:
    program = portrt.load(file).module()
    given = [torch.randn(4, 64) for _ in range(4)]
    wanted = [model(x) for x in given]
    found: dict[int, list[Any]] = {}

    def call(index: int) -> None:
        found[index] = [program(given[index]) for _ in range(20)]

    threads = [threading.Thread(target=call, args=(index,)) for index in range(len(given))]
    with portrt.runtime.policy(engines="openvino", fallback="error"):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for index, outputs in found.items():
        for output in outputs:
            torch.testing.assert_close(output, wanted[index])
    assert [e.backend for e in decode(manifests_of(portrt.load(file))[0]).engines] == [
        "openvino",
        "onnxruntime",
    ]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")
def test_a_child_of_a_process_that_used_openvino_runs_something_else(
    model: nn.Module, file: Path
) -> None:
    """Its threads are the parent's: in a child, its calls would wait for them for ever."""
    x = torch.randn(4, 64)
    loaded = portrt.load(file)
    called, forced = loaded.module(), portrt.load(file).module()
    with portrt.runtime.policy(engines="openvino", fallback="error"):
        forced(x)
    called(x)
    child = os.fork()
    if child == 0:
        signal.alarm(120)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)
                with pytest.raises(UserWarning, match="forked after OpenVINO was used"):
                    called(x)
                warnings.simplefilter("ignore")
                torch.testing.assert_close(called(x), model(x))
            torch.testing.assert_close(portrt.load(file).module()(x), model(x))
            runs = [block.runs_as for block in portrt.runtime.report(portrt.load(file))]
            assert runs == ["onnxruntime"], runs
            with (
                portrt.runtime.policy(engines="openvino", fallback="error"),
                pytest.raises(OutOfProfileError, match="start workers with 'spawn'"),
            ):
                forced(x)
        except BaseException:
            traceback.print_exc()
            os._exit(3)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def test_outputs_are_new_tensors_of_every_dtype() -> None:
    dtypes = [torch.float32, torch.float16, torch.bfloat16, torch.bool, torch.uint8, torch.int8]
    dtypes += [torch.int16, torch.int32, torch.int64]

    class Moved(nn.Module):
        def forward(self, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
            return [*tensors, *(torch.stack([x.t(), x.t()]) for x in tensors)]

    given = [torch.tensor([[0, 1, 3], [1, 0, 100]]).to(dtype) for dtype in dtypes]
    program = portrt.compile(Moved(), inputs=[given], engines="openvino", min_block_size=1)
    first = program(given)
    second = program([x.flip(0) for x in given])

    torch.testing.assert_close(first, Moved()(given), rtol=0, atol=0)
    torch.testing.assert_close(second, Moved()([x.flip(0) for x in given]), rtol=0, atol=0)
    assert program([x.t().contiguous().t() for x in given])[9].equal(first[9])


def _opened(data: bytes, weights: tuple[str, ...] = (), image: Any = None) -> Any:
    blob = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    signature = Signature(
        "block_0",
        (InputSpec("x", "float32", (2, 2)),),
        (OutputSpec("y", "float32", (2, 2)),),
    )
    engine = EngineSpec(
        backend="openvino",
        build={},
        requires={"device": ["cpu"]},
        weights=weights,
        data=Blob.of(0, data),
    )
    return OpenVINORuntime().open(engine, signature, blob, image, device=torch.device("cpu"))


def _model(**changes: Any) -> onnx.ModelProto:
    square = ["float", [2, 2]]
    kinds = {"x": square, "w": square, "y": square, **changes}
    values = {
        name: onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, (_, shape) in kinds.items()
    }
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = onnx.helper.make_graph([node], "g", [values["x"], values["w"]], [values["y"]])
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)])


def test_weights_are_those_of_the_image_in_place() -> None:
    image = image_from_tensors({"w": torch.eye(2) * 3})
    session = _opened(_model().SerializeToString(), ("w",), WeightsImage(image))
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])

    assert session.run([x], [(2, 2)])[0].equal(x * 3)


def test_models_that_read_files_or_memory_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(16))
    for location in (str(tmp_path / "secret"), "*/_ORT_MEM_ADDR_/*"):
        model = _model()
        del model.graph.input[1]
        tensor = model.graph.initializer.add(name="w", data_type=1, dims=[2, 2])
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in {"location": location, "offset": "4096", "length": "16"}.items():
            tensor.external_data.add(key=key, value=value)
        with pytest.raises(EngineError, match="another file"):
            _opened(model.SerializeToString())


def test_bytes_that_are_no_model_and_other_signatures_are_errors() -> None:
    other = _model()
    other.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    other.graph.input[1].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    other.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    for data in (b"0", b"no model", _model().SerializeToString()[:40], other.SerializeToString()):
        with pytest.raises(EngineError, match="block_0"):
            _opened(data)
