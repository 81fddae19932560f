"""Runs an OpenVINO engine on torch tensors, without copies of inputs, outputs or weights."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from typing import Any, NoReturn

import torch

from portrt import forks
from portrt.engines.base import Session
from portrt.engines.openvino import native
from portrt.errors import EngineError, OutOfProfileError, PackageError, PortrtError
from portrt.format.manifest import EngineSpec, Signature
from portrt.weights import WeightsImage

# Integers and sizes up to this one are taken: OpenVINO's CPU plugin computes int64 in int32, and
# some of int32 in float32. How far an engine's own may grow from there, its builder has found.
MAX_INTEGER = 1 << 20

_sessions: weakref.WeakSet[OpenVINOSession] = weakref.WeakSet()


class OpenVINOSession(Session):
    """An opened engine. Calls at once each have an infer request; idle ones are kept.

    A request has the addresses of tensors, and does not keep them alive.

    Args:
        engine: The engine's entry.
        signature: What the block takes and returns.
        data: The engine, 1-D uint8 on the CPU.
        weights: The weights of the program, of which the engine takes some.
    """

    takes_all_sizes = False

    def __init__(
        self,
        engine: EngineSpec,
        signature: Signature,
        data: torch.Tensor,
        weights: WeightsImage | None,
    ) -> None:
        self._signature = signature
        self._name = signature.name
        self._weights = weights  # the model reads them
        self._model: Any = _compiled(engine, signature, data, weights)
        places = {spec.name: index for index, spec in enumerate(signature.inputs)}
        self._inputs = [places[_name(port)] for port in self._model.inputs]
        self._outputs = [getattr(torch, spec.dtype) for spec in signature.outputs]
        self._has_fault = len(self._model.outputs) > len(self._outputs)
        used = [(index, signature.inputs[index]) for index in self._inputs]
        self._sized = [
            (index, axis)
            for index, spec in used
            for axis, size in enumerate(spec.shape)
            if not isinstance(size, int)
        ]
        self._integers = [index for index, spec in used if spec.dtype in ("int32", "int64")]
        self._idle: list[Any] = []  # append and pop are atomic
        _sessions.add(self)

    def leave_to_parent(self) -> None:
        """In a forked child: give the engine up without ending it; calls are refused."""
        kept = (self._model, self._idle)
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))  # never released
        self._model, self._idle = None, []

    def _request(self) -> Any:
        try:
            return self._idle.pop()
        except IndexError:
            pass
        if self._model is None:
            raise OutOfProfileError(
                f"{self._name} was called in a process that was forked after OpenVINO was used",
                "a process that has OpenVINO's threads",
                "fork before the first call, start workers with 'spawn', or use a file that has "
                "its sources, with fallback='eager'",
            )
        return self._model.create_infer_request()

    def run(
        self, inputs: Sequence[torch.Tensor], shapes: Sequence[tuple[int, ...]]
    ) -> list[torch.Tensor]:
        """Run once; see `Session`.

        Raises:
            OutOfProfileError: An integer is too large for OpenVINO's arithmetic.
        """
        for index, axis in self._sized:
            size = inputs[index].shape[axis]
            if size > MAX_INTEGER:
                self._refuse_integers("a size", index, size, size)
        for index in self._integers:
            self._check_integers(index, inputs[index])
        request = self._request()
        kept: list[torch.Tensor] = []
        outputs: list[torch.Tensor] = []
        try:
            for place, index in enumerate(self._inputs):
                tensor = inputs[index].detach().contiguous()
                kept.append(tensor)
                request.set_input_tensor(place, native.tensor_over(tensor))
            for place, (dtype, shape) in enumerate(zip(self._outputs, shapes, strict=True)):
                output = None
                output = torch.empty(shape, dtype=dtype)
                request.set_output_tensor(place, native.tensor_over(output))
                outputs.append(output)
            request.infer(share_outputs=True)
            if self._has_fault and request.get_output_tensor(len(outputs)).data.any():
                self._refuse_indices()
        except OutOfProfileError:
            self._idle.append(request)
            raise
        except Exception as err:
            raise EngineError(
                f"OpenVINO failed in {self._name}: {first_line(err)}",
                "inputs for which the model itself runs",
                "run the uncompiled model on these inputs; if it works, report the model",
            ) from err
        self._idle.append(request)
        return outputs

    def _check_integers(self, index: int, tensor: torch.Tensor) -> None:
        if not tensor.numel():
            return
        low, high = (int(end) for end in torch.aminmax(tensor))
        if low >= -MAX_INTEGER and high <= MAX_INTEGER:
            return
        self._refuse_integers("integers", index, low, high)

    def _refuse_integers(self, what: str, index: int, low: int, high: int) -> NoReturn:
        name = self._signature.inputs[index].name
        raise OutOfProfileError(
            f"{self._name} was called with {what} from {low} to {high} in {name}",
            f"integers up to {MAX_INTEGER}, which OpenVINO computes exactly",
            "use smaller ones, or a file that has its sources, with fallback='eager'",
        )

    def _refuse_indices(self) -> None:
        names = ", ".join(self._signature.inputs[index].name for index in self._integers)
        raise OutOfProfileError(
            f"{self._name} was called with an index that is out of range"
            + (f", from {names}" if names else ""),
            "indices that are in range",
            "correct the index; a file that has its sources names it, with fallback='eager'",
        )


def _compiled(
    engine: EngineSpec, signature: Signature, data: torch.Tensor, weights: WeightsImage | None
) -> Any:
    try:
        model = native.compiled_model(
            data.numpy().tobytes(), engine.weights, weights, _precision(engine)
        )
    except PackageError:
        raise
    except Exception as err:
        raise EngineError(
            f"OpenVINO {native.library_version()} cannot open the engine of {signature.name}: "
            f"{first_line(err)}",
            f"an engine as OpenVINO {engine.build.get('version', '?')} built it",
            "update openvino, or compile the model again",
        ) from err
    _check_signature(model, signature)
    return model


def _precision(engine: EngineSpec) -> str:
    """Return the precision of products and convolutions; nothing else is taken from a file."""
    return "bf16" if engine.build.get("inference_precision") == "bf16" else "f32"


def _name(port: Any) -> str:
    """Return the name of an input; the names of its tensor may be those of others, too."""
    return str(port.get_node().get_friendly_name())


def _check_signature(model: Any, signature: Signature) -> None:
    """Raise EngineError unless an engine's inputs and outputs are those of the manifest."""
    given = {spec.name: native.type_of(getattr(torch, spec.dtype)) for spec in signature.inputs}
    wanted = [native.type_of(getattr(torch, spec.dtype)) for spec in signature.outputs]
    taken = {_name(port): port.element_type for port in model.inputs}
    made = [port.element_type for port in model.outputs]
    fits = all(given.get(name) == kind for name, kind in taken.items())
    if not fits or made[: len(wanted)] != wanted or len(made) > len(wanted) + 1:
        raise EngineError(
            f"the openvino engine of {signature.name} takes {taken} and gives {made}",
            f"inputs among {given} and outputs {wanted}, as in its manifest",
            "compile the model again",
        )


def first_line(err: BaseException) -> str:
    """Return the line of an error with its cause; OpenVINO's begin with other lines."""
    lines = [line.strip() for line in str(err).splitlines() if line.strip()]
    ours = isinstance(err, PortrtError)
    found = [line for line in lines if not line.startswith(("Exception from", "Check '"))]
    return (found or lines or [type(err).__name__])[0 if ours or not found else -1]


def _leave_to_parent() -> None:
    native.leave_core()
    if native.is_left_to_parent():  # what runs instead would wait for OpenMP's, too
        torch.set_num_threads(1)
    for session in list(_sessions):
        session.leave_to_parent()


forks.in_child(_leave_to_parent)
