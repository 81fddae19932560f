"""ONNX Runtime on the CPU: an engine is an ONNX graph of a few kilobytes over the shared weights."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import torch

from portrt.artifacts import Engine, Verdict
from portrt.backends.base import Material, Session, supports_dtypes
from portrt.convert import NEWEST_OPSET
from portrt.errors import BuildError, EngineError
from portrt.package.manifest import EngineSpec, Manifest
from portrt.package.weights import WeightsImage
from portrt.settings import Settings

_INSTALL = "pip install onnxruntime"
_DTYPES = frozenset(
    {
        torch.bool,
        torch.uint8,
        torch.int8,
        torch.int16,
        torch.int32,
        torch.int64,
        torch.float16,
        torch.bfloat16,
        torch.float32,
        torch.float64,
    }
)
# TensorProto.DataType of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
_ELEMENT_TYPES = {
    torch.float32: 1,
    torch.uint8: 2,
    torch.int8: 3,
    torch.int16: 5,
    torch.int32: 6,
    torch.int64: 7,
    torch.bool: 9,
    torch.float16: 10,
    torch.float64: 11,
    torch.bfloat16: 16,
}


class OnnxRuntimeBackend:
    """Builds anywhere, runs on any CPU."""

    name = "onnxruntime"

    def can_build(self) -> Verdict:
        return self._installed()

    def can_run(self, device: str) -> Verdict:
        if device != "cpu":
            return Verdict(
                False, f"it runs on CPU tensors, the inputs are on {device}", "use CPU tensors"
            )
        return self._installed()

    def supports(self, node: torch.fx.Node) -> Verdict:
        return supports_dtypes(node, _DTYPES, self.name)

    def build(self, material: Material, settings: Settings) -> Engine:
        started = time.perf_counter()
        model = material.convert(NEWEST_OPSET)
        data, flags = model.data, []
        if _has_bfloat16(material):
            from portrt.convert.widen_bfloat16 import widen_bfloat16

            data = widen_bfloat16(data)
            flags.append("bfloat16 computed in float32")
        # Opening it proves that every operator has a kernel here; the session is not kept.
        images = WeightsImage(material.image)
        try:
            _session(data, model.weights, images)
        except Exception as err:
            raise BuildError(
                f"onnxruntime refuses {material.block.name}: {_first_line(err)}",
                "operators and dtypes for which ONNX Runtime has a CPU kernel",
                "name the operator in torch_executed_ops, or leave onnxruntime out of engines",
            ) from err
        return Engine(
            backend=self.name,
            data=data,
            build={
                "library": "onnxruntime",
                "version": _version(),
                "opset": model.opset,
                "onnx_nodes": model.nodes,
                "flags": flags,
                "os": platform.system().lower(),
                "arch": platform.machine(),
                "seconds": round(time.perf_counter() - started, 3),
            },
            requires={"device": ["cpu"]},
            weights=model.weights,
        )

    def accepts(self, engine: EngineSpec, device: str) -> Verdict:
        return self.can_run(device)

    def open(
        self, engine: EngineSpec, manifest: Manifest, data: torch.Tensor, weights: WeightsImage | None
    ) -> Session:
        return OnnxRuntimeSession(engine, manifest, data, weights)

    def _installed(self) -> Verdict:
        try:
            import onnxruntime
        except Exception as err:
            return Verdict(False, f"onnxruntime cannot be imported: {err}", _INSTALL)
        return Verdict(True, f"ONNX Runtime {onnxruntime.__version__}")


class OnnxRuntimeSession:
    """torch memory in and out, weights used where they lie."""

    def __init__(
        self, engine: EngineSpec, manifest: Manifest, data: torch.Tensor, weights: WeightsImage | None
    ) -> None:
        try:
            self._session = _session(data.numpy().tobytes(), engine.weights, weights)
        except Exception as err:
            raise EngineError(
                f"ONNX Runtime {_version()} cannot open the engine of {manifest.name}: "
                f"{_first_line(err)}",
                f"an engine as ONNX Runtime {engine.build.get('version', '?')} built it",
                "update onnxruntime, or compile the model again",
            ) from err
        self._weights = weights  # the session reads them, and does not own them
        taken = {item.name for item in self._session.get_inputs()}
        self._inputs = [
            (index, spec.name, _element_type(spec.dtype))
            for index, spec in enumerate(manifest.inputs)
            if spec.name in taken
        ]
        self._outputs = [
            (item.name, getattr(torch, spec.dtype), _element_type(spec.dtype))
            for item, spec in zip(self._session.get_outputs(), manifest.outputs, strict=True)
        ]
        self._name = manifest.name
        self._bindings: list[Any] = []  # idle ones; append and pop are atomic

    def run(
        self, inputs: Sequence[torch.Tensor], shapes: Sequence[tuple[int, ...]]
    ) -> list[torch.Tensor]:
        try:
            binding = self._bindings.pop()
        except IndexError:
            binding = self._session.io_binding()
        kept = []
        for index, name, element_type in self._inputs:
            tensor = inputs[index]
            if not tensor.is_contiguous():
                tensor = tensor.contiguous()
                kept.append(tensor)
            binding.bind_input(name, "cpu", 0, element_type, tensor.shape, tensor.data_ptr())
        outputs = []
        for (name, dtype, element_type), shape in zip(self._outputs, shapes, strict=True):
            output = torch.empty(shape, dtype=dtype)
            outputs.append(output)
            binding.bind_output(name, "cpu", 0, element_type, shape, output.data_ptr())
        try:
            self._session.run_with_iobinding(binding)
        except Exception as err:
            raise EngineError(
                f"ONNX Runtime failed in {self._name}: {_first_line(err)}",
                "inputs for which the model itself runs",
                "run the uncompiled model on these inputs; if it works, report the model",
            ) from err
        self._bindings.append(binding)
        return outputs


def _session(data: bytes, names: Sequence[str], image: WeightsImage | None) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    # Threads spin within a run only: afterwards torch, or the next block, needs the cores.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if names:
        assert image is not None  # decode() checked it
        # The tensors are views of the image: the values hold no memory of their own.
        values = [onnxruntime.OrtValue.from_dlpack(image.tensor(name)) for name in names]
        options.add_external_initializers(list(names), values)
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _element_type(dtype: str) -> int:
    return _ELEMENT_TYPES[getattr(torch, dtype)]


def _has_bfloat16(material: Material) -> bool:
    nodes = material.block.program.graph.nodes
    values = [node.meta.get("val") for node in nodes]
    return any(isinstance(v, torch.Tensor) and v.dtype == torch.bfloat16 for v in values)


def _version() -> str:
    for name in ("onnxruntime", "onnxruntime-gpu"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "unknown"


def _first_line(err: BaseException) -> str:
    text = str(err).strip()
    return text.splitlines()[0] if text else type(err).__name__


