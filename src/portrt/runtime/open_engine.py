"""Opening of stored engines: those of a whole block, and those in parts."""

from __future__ import annotations

from collections.abc import Callable

import torch

from portrt.engines import registry
from portrt.engines.base import DEFAULT_OPTIONS, OpenOptions, Session
from portrt.format.manifest import Blob, EngineSpec, Signature
from portrt.weights import WeightsImage


def open_engine(
    engine: EngineSpec,
    signature: Signature,
    bytes_of: Callable[[Blob], torch.Tensor],
    weights: WeightsImage | None,
    *,
    device: torch.device,
    options: OpenOptions = DEFAULT_OPTIONS,
) -> Session:
    """Open a session on an engine that its runtime accepts.

    Of an engine in parts all parts are opened: it runs with all of them, or not at all.

    Args:
        engine: The engine's entry.
        signature: Inputs and outputs of its block.
        bytes_of: Returns the bytes of one of its blobs, whose digest was checked.
        weights: The weights of the program.
        device: Device of the inputs.
        options: Memory use and permissions.

    Raises:
        EngineError: The native library cannot open the engine, or one of its parts.
        PackageError: The program of an engine in parts is damaged.
    """
    if engine.parts is not None:
        from portrt.runtime.parts import open_parts  # rarely needed

        return open_parts(
            engine, engine.parts, signature, bytes_of, weights, device=device, options=options
        )
    return registry.runtime(engine.backend).open(
        engine, signature, bytes_of(engine.data), weights, device=device, options=options
    )
