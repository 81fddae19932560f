"""runtime="cpp": which engines `libportrt_runtime` runs, and calls of them past Python's kernel."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch

from portrt import torch_internals
from portrt.engines.base import Session
from portrt.engines.cpp_library import library
from portrt.engines.onnxruntime.cpp_session import CppSession
from portrt.engines.onnxruntime.runtime import nonzero_sizes
from portrt.errors import BackendUnavailableError, EngineError
from portrt.format.manifest import EngineSpec
from portrt.runtime.policy import CONTEXT
from portrt.runtime.process_state import BLOCKS
from portrt.runtime.selection import Sessions
from portrt.runtime.stored_block import StoredBlock
from portrt.verdict import Verdict

logger = logging.getLogger(__name__)

_lock = threading.Lock()
_done: set[str] = set()


def why_python(engine: EngineSpec, device: torch.device) -> str:
    """Return why Python runs an engine on tensors of a device; "" where C++ can."""
    if device.type != "cpu":
        return f"the C++ runtime runs on CPU tensors, the inputs are on {device.type}"
    if engine.parts is not None:
        return "the C++ runtime does not run engines in parts"
    if engine.backend != "onnxruntime":
        return f"the C++ runtime has no backend {engine.backend}"
    if engine.build.get("updates_in_place"):
        return "the C++ runtime does not update buffers in place"
    return ""


def is_there() -> bool:
    """Return whether the library was found; the first call in a process warns if it was not."""
    try:
        library()
    except BackendUnavailableError as err:
        with _lock:
            if "warned" in _done:
                return False
            _done.add("warned")
        text = f"{err.happened}: engines run in Python. {err.remedy[0].upper()}{err.remedy[1:]}."
        warnings.warn(text, stacklevel=2)
        return False
    return True


def runtime_of_choice(
    engines: Sequence[EngineSpec],
    verdicts: Sequence[tuple[str, Verdict]],
    device: torch.device,
) -> str:
    """Return what would call the first engine with a yes: "cpp" or "python"."""
    chosen = next(engine for engine, (_, no) in zip(engines, verdicts, strict=False) if no)
    return "python" if why_python(chosen, device) or not is_there() else "cpp"


def open_in_cpp(
    block: StoredBlock,
    engine: EngineSpec,
    device: torch.device,
    sessions: Sessions,
    in_python: Callable[[], Session | Verdict],
) -> CppSession | None:
    """Open an engine in C++; None, with the reason in the log, where Python must run it.

    Args:
        block: Block of the engine.
        engine: Engine that this machine accepts.
        device: Device of the inputs.
        sessions: Sessions that are open already; a new one is added.
        in_python: Opens the engine in Python.

    Raises:
        PackageError: The engine's bytes do not match the digest in the manifest.
    """
    key = (engine.data.index, device, "cpp")
    found = sessions.get(key)
    if isinstance(found, CppSession):
        return found
    why = why_python(engine, device)
    if not why:
        if not is_there():
            return None
        try:
            blobs = block.checked_blobs(engine)
            made = CppSession(
                block.text,
                blobs,
                block.manifest.engines.index(engine),
                takes_all_sizes=not nonzero_sizes(
                    engine, block.signature, blobs[engine.data.index]
                ),
                in_python=in_python,
            )
        except (BackendUnavailableError, EngineError) as err:
            why = err.happened
        else:
            sessions[key] = made
            _call_past_python()
            return made
    logger.info("%s: %s runs in Python: %s", block.name, engine.backend, why)
    return None


def _call_past_python() -> None:
    """Have calls of the operator go to C++ at once, where nothing is left to decide.

    Python's kernel takes as long as a small engine. It stays the operator's, for calls that
    anything intercepts, for tensors of subclasses, and for every error.
    """
    with _lock:
        if "calls" not in _done:
            _done.add("calls")
            torch_internals.call_first(torch.ops.portrt.execute_engine, _faster)


def _faster(through_dispatcher: Any) -> Any:
    run = torch_internals.function_of(torch.ops.portrt.run_opened_engine.default)
    usual = torch_internals.nothing_intercepts
    blocks, current, plain = BLOCKS, CONTEXT.get, torch.Tensor

    def call(*args: Any, **kwargs: Any) -> Any:
        if kwargs or len(args) != 3 or not usual():
            return through_dispatcher(*args, **kwargs)
        inputs, blobs, manifest = args
        block = blocks.get(tuple(map(id, blobs)))
        if block is None or block.text != manifest:
            return through_dispatcher(*args)
        session = block.in_cpp.get(current())
        if session is None:
            return through_dispatcher(*args)
        for item in inputs:
            if type(item) is not plain or item.is_neg():
                return through_dispatcher(*args)
        try:
            return run(inputs, session.number)
        except RuntimeError:  # the kernel raises portrt's own error
            return through_dispatcher(*args)

    torch_internals.not_traced(call)
    return call
