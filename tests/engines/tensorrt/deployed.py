"""Runs an engine on the fake TensorRT, in a process of its own: `deployed.py`; test_deployed.py."""

from __future__ import annotations

import contextlib
import sys

import torch
from fake_tensorrt import fake_library, plan
from rig import FREE, TOTAL, manifest_of, spec_of

SHAPE = (2,)


def main() -> None:
    """Open and run, with the CPU in the place of CUDA device 0."""
    sys.modules["tensorrt"] = fake_library("tensorrt", "10.13.0.35")
    torch.cuda.device = lambda _: contextlib.nullcontext()  # type: ignore[assignment, misc]
    torch.cuda.current_device = lambda: 0
    torch.cuda.is_current_stream_capturing = lambda: False
    torch.cuda.mem_get_info = lambda _=None: (FREE, TOTAL)

    from portrt import torch_internals

    torch_internals.current_device_index = lambda: 0
    torch_internals.is_capturing = lambda: False
    torch_internals.current_stream_handle = lambda _: 0

    from portrt.engines.registry import runtime
    from portrt.engines.tensorrt.open import open_session

    assert runtime("tensorrt").name == "tensorrt"
    data = plan("plus one", {"x": ("FLOAT", SHAPE, [[SHAPE] * 3])}, {"y": ("FLOAT", SHAPE)})
    session = open_session(
        spec_of(data),
        manifest_of({"x": ("float32", SHAPE)}, {"y": ("float32", SHAPE)}).signature,
        torch.frombuffer(bytearray(data), dtype=torch.uint8),
        library="tensorrt",
        built="10.13.0.35",
        device=torch.device("cpu", 0),
    )
    (y,) = session.run([torch.tensor([1.0, 2.0])], [SHAPE])
    assert y.tolist() == [2.0, 3.0]


main()
