"""A session on a fake library, and what it takes to make one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from portrt.engines.tensorrt.session import TensorRTSession
from portrt.format.manifest import Blob, EngineSpec, Manifest, compose, decode

FREE, TOTAL = 3 << 20, 80 << 30  # bytes of the GPU's memory


@dataclass(frozen=True)
class Rig:
    """A session, and the library that it runs on."""

    session: TensorRTSession
    library: Any

    def __call__(self, *inputs: torch.Tensor, shapes: Any = None) -> list[torch.Tensor]:
        """Run; the outputs have the first input's shape unless others are given."""
        return self.session.run(inputs, shapes or [tuple(inputs[0].shape)])

    def calls(self, method: str) -> list[tuple[Any, ...]]:
        """Arguments of the calls of a method so far, in order."""
        return [args for _, name, *args in self.library.calls if name == method]

    def contexts(self) -> list[Any]:
        """The context of each run so far."""
        return [context for context, _, _ in self.library.executed]


def aligned(values: torch.Tensor) -> torch.Tensor:
    """A copy at an address that CUDA's allocator could have given."""
    size = values.numel() * values.element_size()
    room = torch.zeros(size + 512, dtype=torch.uint8)
    start = -room.data_ptr() % 512
    made = room[start : start + size].view(values.dtype).view(values.shape)
    return made.copy_(values)


def spec_of(plan: bytes, **build: Any) -> EngineSpec:
    """The entry of an engine."""
    requires = {"device": ["cuda"], "tensorrt": "10.13.0.35"}
    return EngineSpec(backend="tensorrt", data=Blob.of(1, plan), build=build, requires=requires)


def manifest_of(inputs: dict[str, Any], outputs: dict[str, Any], **fields: Any) -> Manifest:
    """A block without a source.

    Args:
        inputs: Name -> dtype and shape.
        outputs: Likewise.
        fields: Others of the manifest.
    """

    def entries(ports: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"name": name, "dtype": d, "shape": list(s)} for name, (d, s) in ports.items()]

    return decode(
        compose(name="block_0", inputs=entries(inputs), outputs=entries(outputs), **fields)
    )
