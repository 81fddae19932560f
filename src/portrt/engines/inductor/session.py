"""Runs an AOTInductor engine on torch tensors. Weights on the CPU are used in place."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence

import torch

from portrt import forks
from portrt.engines.device_weights import weight_on
from portrt.engines.outputs import own_outputs
from portrt.engines.torch_session import TorchSession
from portrt.errors import EngineError, PackageError, first_line
from portrt.format.manifest import EngineSpec, Signature
from portrt.torch_internals.aoti import LoadedPackage
from portrt.weights import WeightsImage

# Flag of an engine with weights of its own.
FROZEN = "freezing"
# GPU kernels assume that inputs are aligned to so many bytes.
_ALIGNMENT = 16

_sessions: weakref.WeakSet[InductorSession] = weakref.WeakSet()


class InductorSession(TorchSession):
    """An opened engine.

    Args:
        engine: The engine's entry.
        signature: What the block takes and returns.
        data: The package, 1-D uint8 on the CPU.
        weights: The weights of the program, of which the engine takes some.
        device: Device of the inputs.

    Raises:
        EngineError: torch cannot load the package.
        PackageError: The entry does not fit the package.
    """

    def __init__(
        self,
        engine: EngineSpec,
        signature: Signature,
        data: torch.Tensor,
        weights: WeightsImage | None,
        device: torch.device,
    ) -> None:
        super().__init__(signature.name, device)
        self._dtypes = [getattr(torch, spec.dtype) for spec in signature.outputs]
        self._weights = weights  # its address must not be that of another image meanwhile
        self._aligned = device.type == "cpu"
        # torch's binding holds the GIL, but a kernel may let go of it.
        self._lock = forks.renewed(threading.Lock())
        try:
            self._package = LoadedPackage(data, device)
            constants = _constants(engine, self._package.constants, weights, device)
            if constants:
                self._package.set_constants(constants)
        except PackageError:
            raise
        except Exception as err:
            raise EngineError(
                f"torch {torch.__version__} cannot open the inductor engine of {signature.name}: "
                f"{first_line(err)}",
                f"a package as torch {engine.build.get('version', '?')} built it",
                "compile the model again, or load it with rebuild='missing'",
            ) from err
        _sessions.add(self)
        self._held = list(constants.values())  # for the other sessions of the program
        self._constants = {item.untyped_storage().data_ptr() for item in self._held}

    def run(
        self, inputs: Sequence[torch.Tensor], shapes: Sequence[tuple[int, ...]]
    ) -> list[torch.Tensor]:
        taken = self._constants.copy()
        given: list[torch.Tensor] = []
        for tensor in inputs:
            if not tensor.is_contiguous():
                tensor = tensor.contiguous()
            if not self._aligned and tensor.data_ptr() % _ALIGNMENT:
                tensor = tensor.clone()
            taken.add(tensor.untyped_storage().data_ptr())
            given.append(tensor)
        try:
            with self._lock:
                results = self._package.run(given)
        except Exception as err:
            raise EngineError(
                f"the inductor engine of {self._name} failed: {first_line(err)}",
                "inputs for which the model itself runs",
                "run the uncompiled model on these inputs; if it works, report the model",
            ) from err
        what = f"the inductor engine of {self._name}"
        return own_outputs(what, results, shapes, self._dtypes, taken)


def _constants(
    engine: EngineSpec, taken: Sequence[str], weights: WeightsImage | None, device: torch.device
) -> dict[str, torch.Tensor]:
    """Return the constants that a package gets: name -> weight, on the device.

    Raises:
        PackageError: The entry does not name a weight for each.
    """
    if FROZEN in (engine.build.get("flags") or ()):
        return {}  # the package holds them
    names = engine.build.get("constants")
    named = dict(zip(names, engine.weights, strict=False)) if isinstance(names, list) else {}
    if set(named) != set(taken) or len(engine.weights) != len(named):
        raise PackageError(
            f"an inductor engine names weights for the constants {sorted(named)!r:.200}",
            f"{list(taken)!r:.200}, and a weight for each",
            "get the file again from where it was made, or compile the model again",
        )
    found = {}
    for constant, name in named.items():
        assert weights is not None  # the manifest was checked for it
        found[constant] = weight_on(weights, name, device)
    return found


def _run_in_one_thread() -> None:
    """In a forked child: use the one thread that it has, if an engine was opened in the parent.

    Kernels start teams of OpenMP threads at every size, and would wait for those of the parent.
    """
    if _sessions:
        torch.set_num_threads(1)


forks.in_child(_run_in_one_thread)
