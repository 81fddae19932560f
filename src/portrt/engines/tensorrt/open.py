"""From an engine's bytes to a session."""

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
        engine: Its entry.
        signature: What the block takes and returns.
        data: The engine, 1-D uint8 on the CPU.
        weights: The weights of the program, of which the engine may lack some.
        library: Name of the Python module that runs it.
        built: Release of the library that built it.
        device: A CUDA device; without an index, the current one.
        lean_runtime: Path of the lean runtime that it needs, if it does.
        host_code: Let it bring code for the CPU along.

    Raises:
        EngineError: The library is not there, or refuses the engine; or the engine's header says
            that another version built it, on which the library might crash.
    """
    other = contradiction(as_bytes(data), engine.backend, built)
    if other:
        raise EngineError(
            f"the engine of {signature.name} is not what its manifest says: {other}",
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
    unknown = any(isinstance(size, DataDependentSize) for size in sizes)
    told = any(binding.on_host for binding in opened.inputs.values())  # by their numbers
    if unknown and not told and not opened.allocates_outputs:
        raise EngineError(
            f"{signature.name} has outputs whose size only a run tells, and {library} "
            f"{lib.version} cannot take such sizes from an engine of TensorRT {built}",
            "a runtime of the release that built the engine",
            f"install tensorrt or tensorrt_lean {built}, or build the engine again",
        )
    return TensorRTSession(opened, engine, signature)
