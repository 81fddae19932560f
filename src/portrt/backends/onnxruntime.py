"""ONNX Runtime on the CPU: an engine is a small ONNX graph over the shared weights."""

from __future__ import annotations

import ctypes
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from portrt.artifacts import Engine, Verdict
from portrt.backends.base import LayerTime, Material, Session, supports_dtypes
from portrt.backends.onnxruntime_limits import SAFE_DIVISION, computes_alike, divides_whole_numbers
from portrt.backends.onnxruntime_session import left_alone, open_session
from portrt.backends.onnxruntime_types import ELEMENT_TYPES, TYPE_NAMES
from portrt.convert import NEWEST_OPSET
from portrt.errors import BuildError, EngineError, PackageError
from portrt.graphs import nested
from portrt.package.manifest import EngineSpec, Manifest
from portrt.package.requirements import INSTALL, Facts, judge
from portrt.package.weights import WeightsImage
from portrt.runtime.signature import UNKNOWN
from portrt.settings import Settings

_INSTALL = INSTALL["onnxruntime"]
# The oldest release that reads opset 23; setup asks for it too.
_OLDEST = "1.23"
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

# ONNX Runtime wants an address for an output without elements, too; torch has none.
_nothing = torch.empty(64, dtype=torch.uint8)
_NOWHERE = _nothing.data_ptr()


class OnnxRuntimeBackend:
    """Builds anywhere, runs on any CPU."""

    name = "onnxruntime"

    def can_build(self, python: str | None = None) -> Verdict:  # noqa: ARG002
        return self._installed()

    def can_run(self, device: str) -> Verdict:
        if device != "cpu":
            return Verdict(
                False, f"it runs on CPU tensors, the inputs are on {device}", "use CPU tensors"
            )
        return self._installed()

    def supports(self, node: torch.fx.Node) -> Verdict:
        able = supports_dtypes(node, _DTYPES, self.name)
        return able and computes_alike(node, _version())

    def build(self, material: Material, settings: Settings) -> Engine:  # noqa: ARG002
        started = time.perf_counter()
        model = material.convert(NEWEST_OPSET)
        data, flags = model.data, []
        if _has_bfloat16(material):
            from portrt.convert.widen_bfloat16 import widen_bfloat16

            data = widen_bfloat16(data)
            flags.append("bfloat16 computed in float32")
        from portrt.convert.fuse_transposed_matmul import fuse_transposed_matmul
        from portrt.convert.group_norm import group_norm_by_instance_norm
        from portrt.convert.whole_sums import exact_sums

        data = exact_sums(group_norm_by_instance_norm(fuse_transposed_matmul(data)))
        # Opening it proves that every operator has a kernel here; the session is not kept.
        try:
            open_session(data, model.weights, WeightsImage(material.image), lean=True)
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
                "weights_in_place": left_alone(data, model.weights),
                "os": platform.system().lower(),
                "arch": platform.machine(),
                "seconds": round(time.perf_counter() - started, 3),
            },
            requires={"device": ["cpu"], self.name: _oldest(material)},
            weights=model.weights,
        )

    def accepts(self, engine: EngineSpec, device: torch.device) -> Verdict:
        able = self.can_run(device.type)
        facts = Facts(versions={self.name: _version()})
        return judge(self.name, engine.requires, facts, device.type) if able else able

    def open(
        self,
        engine: EngineSpec,
        manifest: Manifest,
        data: torch.Tensor,
        weights: WeightsImage | None,
        *,
        device: torch.device,  # noqa: ARG002  (the CPU)
        lean: bool = False,
    ) -> Session:
        return OnnxRuntimeSession(engine, manifest, data, weights, lean=lean)

    def _installed(self) -> Verdict:
        try:
            import onnxruntime

            return Verdict(True, f"ONNX Runtime {onnxruntime.__version__}")
        except Exception as err:
            reason = f"onnxruntime cannot be imported: {type(err).__name__}: {_first_line(err)}"
            return Verdict(False, reason, _INSTALL)


class OnnxRuntimeSession:
    """torch memory in and out, weights used where they lie.

    Args:
        engine: As for `Backend.open`.
        manifest: Likewise.
        data: Likewise.
        weights: Likewise.
        lean: Likewise.
        prepare: Changes the options of the native session before it is made.
    """

    def __init__(
        self,
        engine: EngineSpec,
        manifest: Manifest,
        data: torch.Tensor,
        weights: WeightsImage | None,
        *,
        lean: bool = False,
        prepare: Callable[[Any], None] | None = None,
    ) -> None:
        self._opened = (engine, manifest, data, weights)
        try:
            model = data.numpy().tobytes()
            # What the session reads, and does not own.
            self._session, self._weights = open_session(
                model,
                engine.weights,
                weights,
                in_place=_in_place(engine),
                lean=lean,
                prepare=prepare,
            )
        except PackageError:
            raise
        except Exception as err:
            raise EngineError(
                f"ONNX Runtime {_version()} cannot open the engine of {manifest.name}: "
                f"{_first_line(err)}",
                f"an engine as ONNX Runtime {engine.build.get('version', '?')} built it",
                "update onnxruntime, or compile the model again",
            ) from err
        _check_signature(self._session, manifest)
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
        # The binding's native half: the public IOBinding makes an OrtDevice in every bind call,
        # which doubles what a small call costs.
        self._cpu = _cpu_device()
        self._native_run = self._session._sess.run_with_iobinding
        self._bindings: list[Any] = []  # idle ones; append and pop are atomic

    def run(
        self, inputs: Sequence[torch.Tensor], shapes: Sequence[tuple[int, ...]]
    ) -> list[torch.Tensor]:
        try:
            binding = self._bindings.pop()
        except IndexError:
            binding = self._session.io_binding()._iobinding
        cpu = self._cpu
        kept, outputs = [], []
        try:
            for index, name, element_type in self._inputs:
                tensor = inputs[index]
                if not tensor.is_contiguous():
                    tensor = tensor.contiguous()
                    kept.append(tensor)
                binding.bind_input(name, cpu, element_type, tensor.shape, tensor.data_ptr())
            for (name, dtype, element_type), shape in zip(self._outputs, shapes, strict=True):
                if UNKNOWN in shape:  # ONNX Runtime's memory, copied when the size is known
                    binding.bind_output(name, cpu)
                    continue
                output = torch.empty(shape, dtype=dtype)
                outputs.append(output)
                address = output.data_ptr() or _NOWHERE
                binding.bind_output(name, cpu, element_type, shape, address)
            self._native_run(binding, None)
            if len(outputs) < len(shapes):
                outputs = self._copied_outputs(binding)
        except Exception as err:
            raise EngineError(
                f"ONNX Runtime failed in {self._name}: {_first_line(err)}",
                "inputs for which the model itself runs",
                "run the uncompiled model on these inputs; if it works, report the model",
            ) from err
        self._bindings.append(binding)
        return outputs

    def _copied_outputs(self, binding: Any) -> list[torch.Tensor]:
        """All outputs of a run, those in torch's memory too; the binding lets go of them."""
        outputs = []
        for value, (_, dtype, _) in zip(binding.get_outputs(), self._outputs, strict=True):
            output = torch.empty(value.shape(), dtype=dtype)
            if output.numel():
                ctypes.memmove(output.data_ptr(), value.data_ptr(), output.nbytes)
            outputs.append(output)
        binding.clear_binding_outputs()
        return outputs

    def layer_times(
        self, inputs: Sequence[torch.Tensor], shapes: Sequence[tuple[int, ...]], *, calls: int
    ) -> list[LayerTime]:
        """Time each node of the optimized graph, in a second session.

        ONNX Runtime's clock counts whole microseconds, and rounds down.
        """
        from portrt.backends.node_times import WARM_UP
        from portrt.backends.onnxruntime_profile import read_trace, write_to

        with TemporaryDirectory(prefix="portrt-profile-") as folder:
            room = Path(folder)
            twin = OnnxRuntimeSession(*self._opened, prepare=lambda opts: write_to(opts, room))
            for _ in range(WARM_UP + calls):
                twin.run(inputs, shapes)
            trace = Path(twin._session.end_profiling())
            return read_trace(trace, room, self._opened[2].numpy().tobytes(), skip=WARM_UP)


def _in_place(engine: EngineSpec) -> list[int]:
    """Which of its weights the session uses where they lie; none, where the file does not say."""
    found = engine.build.get("weights_in_place")
    places = range(len(engine.weights))
    if not isinstance(found, list):
        return []
    return [place for place in found if isinstance(place, int) and place in places]


def _cpu_device() -> Any:
    from onnxruntime.capi import onnxruntime_pybind11_state as native

    device = native.OrtDevice
    return device(device.cpu(), device.default_memory(), 0)


def _check_signature(session: Any, manifest: Manifest) -> None:
    """Raise EngineError unless an engine takes and gives what the manifest says.

    The addresses of torch's tensors are handed over by name and dtype; sizes are checked by ONNX
    Runtime at each run.
    """
    given = {spec.name: _type_name(spec.dtype) for spec in manifest.inputs}
    taken = {item.name: item.type for item in session.get_inputs()}
    made = [item.type for item in session.get_outputs()]
    wanted = [_type_name(spec.dtype) for spec in manifest.outputs]
    fits = all(given.get(name) == kind for name, kind in taken.items())
    if not fits or made != wanted:
        raise EngineError(
            f"the onnxruntime engine of {manifest.name} takes {taken} and gives {made}",
            f"inputs among {given} and outputs {wanted}, as its manifest says",
            "compile the model again",
        )


def _type_name(dtype: str) -> str:
    return TYPE_NAMES.get(getattr(torch, dtype), dtype)


def _element_type(dtype: str) -> int:
    return ELEMENT_TYPES[getattr(torch, dtype)]


def _oldest(material: Material) -> str:
    """The oldest release that may run the block."""
    nodes = nested.all_nodes(material.block.program.graph_module)
    return SAFE_DIVISION if any(map(divides_whole_numbers, nodes)) else _OLDEST


def _has_bfloat16(material: Material) -> bool:
    nodes = nested.all_nodes(material.block.program.graph_module)
    values = [node.meta.get("val") for node in nodes]
    return any(isinstance(v, torch.Tensor) and v.dtype == torch.bfloat16 for v in values)


def _version() -> str:
    """Of the module that is in use, whichever of its packages it came from."""
    return str(getattr(sys.modules.get("onnxruntime"), "__version__", "unknown"))


def _first_line(err: BaseException) -> str:
    text = str(err).strip()
    return text.splitlines()[0] if text else type(err).__name__
