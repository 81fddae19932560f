"""Opens a session on a serialized engine."""

from __future__ import annotations

import torch

from portrt.engines.tensorrt.engine import as_bytes, open_engine
from portrt.engines.tensorrt.libraries import interface_of
from portrt.engines.tensorrt.libraries import library as find_library
from portrt.engines.tensorrt.refit import EngineWeights
from portrt.engines.tensorrt.session import TensorRTSession
from portrt.errors import EngineError
from portrt.format.dimensions import DataDependentSize
from portrt.format.manifest import EngineSpec, Signature
from portrt.format.plan_header import contradiction
from portrt.weights import WeightsImage


def open_session(
    engine: EngineSpec,
    signature: Signature,
    data: torch.Tensor,
    weights: WeightsImage | None = None,
    *,
    library: str,
    built: str,
    device: torch.device,
    lean_runtime: str | None = None,
    host_code: bool = False,
) -> TensorRTSession:
    """Open an engine on a device.

    Args:
        engine: The engine's entry.
        signature: Inputs and outputs of the block.
        data: The serialized engine, 1-D uint8 on the CPU.
        weights: The weights of the program; an engine may be built without some of them.
        library: Name of the Python module that runs it.
        built: Release of the library that built it.
        device: A CUDA device; without an index, the current one.
        lean_runtime: Path of the lean runtime library, for an engine that needs one.
        host_code: Allow host (CPU) code in the engine.

    Raises:
        EngineError: The library is not installed, or cannot deserialize the engine; or the
            engine's header has another version than the manifest, which might crash the library.
    """
    other = contradiction(as_bytes(data), engine.backend, built)
    if other:
        raise EngineError(
            f"the engine of {signature.name} is not the one that its manifest describes: {other}",
            "an engine and a manifest that belong together",
            "get the file again from where it was made",
        )
    index = torch.cuda.current_device() if device.index is None else device.index
    where = torch.device(device.type, index)
    lib = find_library(library)
    with torch.cuda.device(where):
        runtime = lib.runtime(lean=lean_runtime, host_code=host_code)
    interface = interface_of(library, built)
    lacking = EngineWeights.of(engine.weights, weights)
    opened = open_engine(lib, runtime, data, engine.data.sha256, interface, where, lacking)
    sizes = [size for output in signature.outputs for size in output.shape]
    data_dependent = any(isinstance(size, DataDependentSize) for size in sizes)
    # With shape tensors, output shapes follow from their values, which are known before the run.
    shape_tensors = any(binding.on_host for binding in opened.inputs.values())
    if data_dependent and not shape_tensors and not opened.allocates_outputs:
        raise EngineError(
            f"{signature.name} has data-dependent output sizes, which {library} {lib.version} "
            f"cannot get from an engine of TensorRT {built}",
            "a runtime of the release that built the engine",
            f"install tensorrt or tensorrt_lean {built}, or build the engine again",
        )
    return TensorRTSession(opened, engine, signature)
