"""Runs an ONNX Runtime engine on torch tensors, without copies of inputs, outputs or weights."""

from __future__ import annotations

import ctypes
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from portrt import forks
from portrt.engines.base import UNKNOWN, LayerTime, Session
from portrt.engines.onnxruntime.native import open_session
from portrt.engines.onnxruntime.types import ELEMENT_TYPES, TYPE_NAMES
from portrt.errors import EngineError, PackageError, first_line
from portrt.format.manifest import EngineSpec, Signature
from portrt.weights import WeightsImage

# ONNX Runtime needs an address for an output without elements, too; torch has none.
_nothing = torch.empty(64, dtype=torch.uint8)
_NOWHERE = _nothing.data_ptr()

_sessions: weakref.WeakSet[OnnxRuntimeSession] = weakref.WeakSet()


class OnnxRuntimeSession(Session):
    """An opened engine. Inputs, outputs and weights are used in place.

    Args:
        engine: The engine's entry.
        signature: What the block takes and returns.
        data: The engine, 1-D uint8 on the CPU.
        weights: The weights of the program, of which the engine takes some.
        low_memory: Use as little memory as possible, at the cost of speed: for a single run.
        prepare: Changes the options of the native session before it is made.
    """

    supports_layer_times = True

    def __init__(
        self,
        engine: EngineSpec,
        signature: Signature,
        data: torch.Tensor,
        weights: WeightsImage | None,
        *,
        low_memory: bool = False,
        prepare: Callable[[Any], None] | None = None,
    ) -> None:
        self._opened = (engine, signature, data, weights)
        self._how: dict[str, Any] = {"low_memory": low_memory, "prepare": prepare}
        self._opening = forks.renewed(threading.Lock())
        self._open()
        taken = {item.name for item in self._session.get_inputs()}
        self._inputs = [
            (index, spec.name, _element_type(spec.dtype))
            for index, spec in enumerate(signature.inputs)
            if spec.name in taken
        ]
        self._outputs = [
            (item.name, getattr(torch, spec.dtype), _element_type(spec.dtype))
            for item, spec in zip(self._session.get_outputs(), signature.outputs, strict=True)
        ]
        self._name = signature.name
        self._cpu = _cpu_device()
        self._bindings: list[Any] = []  # idle; append and pop are atomic
        _sessions.add(self)

    def _open(self) -> None:
        engine, signature, data, weights = self._opened
        try:
            model = data.numpy().tobytes()
            # `_weights` keeps alive what the session reads and does not own.
            session, self._weights = open_session(
                model, engine.weights, weights, in_place=_in_place(engine), **self._how
            )
        except PackageError:
            raise
        except Exception as err:
            raise EngineError(
                f"ONNX Runtime {library_version()} cannot open the engine of {signature.name}: "
                f"{first_line(err)}",
                f"an engine as ONNX Runtime {engine.build.get('version', '?')} built it",
                "update onnxruntime, or compile the model again",
            ) from err
        _check_signature(session, signature)
        # The native half of IOBinding: the public one creates an OrtDevice in every bind call, and
        # doubles the time of a small call.
        self._native_run = session._sess.run_with_iobinding
        self._session: Any = session

    def _new_binding(self) -> Any:
        if self._session is None:  # this process is forked, and the session is of its parent
            with self._opening:
                if self._session is None:
                    self._open()
        return self._session.io_binding()._iobinding

    def leave_to_parent(self) -> None:
        """In a forked child: give the session up without ending it; the next call opens another.

        Ending it would wait for its threads, which only the parent has.
        """
        kept = (self._session, self._native_run, self._bindings)
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))  # never released
        self._session = self._native_run = None
        self._bindings = []

    def run(
        self, inputs: Sequence[torch.Tensor], shapes: Sequence[tuple[int, ...]]
    ) -> list[torch.Tensor]:
        try:
            binding = self._bindings.pop()
        except IndexError:
            binding = self._new_binding()
        cpu = self._cpu
        kept: list[torch.Tensor] = []
        outputs: list[torch.Tensor] = []
        make = getattr(shapes, "outputs", None)  # of InPlaceShapes
        made = make(*self._opened[:2], inputs) if make else ()
        try:
            for index, name, element_type in self._inputs:
                tensor = inputs[index]
                if not tensor.is_contiguous():
                    tensor = tensor.contiguous()
                    kept.append(tensor)
                binding.bind_input(name, cpu, element_type, tensor.shape, tensor.data_ptr())
            for (name, dtype, element_type), shape in zip(self._outputs, shapes, strict=True):
                if UNKNOWN in shape:  # ONNX Runtime allocates it; copied after the run
                    binding.bind_output(name, cpu)
                    continue
                output = made[len(outputs)] if made else torch.empty(shape, dtype=dtype)
                outputs.append(output)
                address = output.data_ptr() or _NOWHERE
                binding.bind_output(name, cpu, element_type, shape, address)
            self._native_run(binding, None)
            if len(outputs) < len(shapes):
                outputs = self._copied_outputs(binding)
        except Exception as err:
            from portrt.engines.onnxruntime.failures import failure_of

            raise failure_of(err, self._opened[1], inputs) from err
        self._bindings.append(binding)
        return outputs

    def _copied_outputs(self, binding: Any) -> list[torch.Tensor]:
        """Copy all outputs of a run into torch tensors, and release them from the binding."""
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

        ONNX Runtime's times are integers of microseconds, rounded down.
        """
        from portrt.engines.node_times import WARM_UP
        from portrt.engines.onnxruntime.layer_times import read_trace, write_to
        from portrt.format.temp_file import temporary_folder

        with temporary_folder("portrt-profile-") as workdir:
            twin = OnnxRuntimeSession(*self._opened, prepare=lambda opts: write_to(opts, workdir))
            for _ in range(WARM_UP + calls):
                twin.run(inputs, shapes)
            trace = Path(twin._session.end_profiling())
            return read_trace(trace, workdir, self._opened[2].numpy().tobytes(), skip=WARM_UP)


def _in_place(engine: EngineSpec) -> list[int]:
    """Read the indices of the weights that the session uses in place; none in older files."""
    found = engine.build.get("weights_in_place")
    places = range(len(engine.weights))
    if not isinstance(found, list):
        return []
    return [place for place in found if isinstance(place, int) and place in places]


def _cpu_device() -> Any:
    from onnxruntime.capi import onnxruntime_pybind11_state as native

    device = native.OrtDevice
    return device(device.cpu(), device.default_memory(), 0)


def _check_signature(session: Any, signature: Signature) -> None:
    """Raise EngineError unless an engine's inputs and outputs are those of the manifest.

    Names and dtypes: by them the addresses of torch's tensors are bound. ONNX Runtime checks sizes
    in each run.
    """
    given = {spec.name: _type_name(spec.dtype) for spec in signature.inputs}
    taken = {item.name: item.type for item in session.get_inputs()}
    made = [item.type for item in session.get_outputs()]
    wanted = [_type_name(spec.dtype) for spec in signature.outputs]
    fits = all(given.get(name) == kind for name, kind in taken.items())
    if not fits or made != wanted:
        raise EngineError(
            f"the onnxruntime engine of {signature.name} takes {taken} and gives {made}",
            f"inputs among {given} and outputs {wanted}, as in its manifest",
            "compile the model again",
        )


def _type_name(dtype: str) -> str:
    return TYPE_NAMES.get(getattr(torch, dtype), dtype)


def _element_type(dtype: str) -> int:
    return ELEMENT_TYPES[getattr(torch, dtype)]


def library_version() -> str:
    """Return the version of the imported module, whichever distribution it is from."""
    return str(getattr(sys.modules.get("onnxruntime"), "__version__", "unknown"))


def _leave_to_parent() -> None:
    """In a forked child: end nothing that has threads in the parent."""
    for session in list(_sessions):
        session.leave_to_parent()
    if "onnxruntime" in sys.modules:
        forks.end_without_native_handlers()


forks.in_child(_leave_to_parent)
