"""Times each layer of an engine with TensorRT's profiler."""

from __future__ import annotations

import json
import logging
import statistics
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch

from portrt.engines.base import LayerTime
from portrt.engines.tensorrt.contexts import Slot
from portrt.engines.tensorrt.execution import EngineExecution

logger = logging.getLogger(__name__)

_WARM_UP = 3


def layer_times(
    session: EngineExecution,
    inputs: Sequence[torch.Tensor],
    shapes: Sequence[tuple[int, ...]],
    calls: int,
) -> list[LayerTime]:
    """Time each layer of an engine.

    The layers run in a context of their own, and one after the other, where TensorRT would
    otherwise let them overlap.

    Args:
        session: The engine.
        inputs: Inputs of the block's call.
        shapes: Shape of each output.
        calls: Number of timed calls; those that warm up come on top.

    Returns:
        The layers, in the order in which they ran.
    """
    stream = torch.cuda.current_stream(session.device)
    given, sizes = session.bound(inputs, stream.cuda_stream)
    profile = session.profile(sizes, dict(given))
    opened = session.opened
    slot = Slot(opened.new_context(profile, stream.cuda_stream), opened.device, profile)
    profiler = _profiler(opened.lib.module)
    slot.context.profiler = profiler
    rounds: list[OrderedDict[str, float]] = []
    for _ in range(_WARM_UP + calls):
        profiler.times = OrderedDict()
        session.enqueue(slot, stream.cuda_stream, given, sizes, shapes)
        stream.synchronize()
        rounds.append(profiler.times)
    timed = rounds[_WARM_UP:]
    kinds = _kinds(opened.engine, opened.lib.module)
    return [
        LayerTime(
            name,
            kinds.get(name, ""),
            statistics.median(times.get(name, 0.0) for times in timed) / 1000,
        )
        for name in timed[-1]
    ]


def _profiler(module: Any) -> Any:
    class Profiler(module.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            module.IProfiler.__init__(self)
            self.times: OrderedDict[str, float] = OrderedDict()

        def report_layer_time(self, name: str, milliseconds: float) -> None:
            self.times[name] = self.times.get(name, 0.0) + milliseconds

    return Profiler()


def _kinds(engine: Any, module: Any) -> dict[str, str]:
    """Read layer types from the engine inspector: layer name -> type.

    Empty where the engine was not built with detailed profiling, or in the dispatch and lean
    runtimes, which have no inspector.
    """
    try:
        inspector = engine.create_engine_inspector()
        text = inspector.get_engine_information(module.LayerInformationFormat.JSON)
        layers = json.loads(text)["Layers"]
    except Exception:
        logger.debug("no layer types", exc_info=True)
        return {}
    return {
        str(layer["Name"]): str(layer.get("LayerType", ""))
        for layer in layers
        if isinstance(layer, dict) and "Name" in layer
    }
