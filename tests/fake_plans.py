"""Plans that nothing can run, and a backend that stands for any: no GPU and no vendor library."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from portrt.engines.base import OpenOptions, Session
from portrt.verdict import YES, Verdict

HEAD = Path(__file__).parent / "format" / "plans" / "tensorrt_8_6_sm90.head"


def tensorrt_plan(content: bytes = b"") -> bytes:
    """What begins like a plan of TensorRT 8.6 for compute capability 9.0; nothing can run it."""
    head = HEAD.read_bytes()
    size = len(head) + len(content)
    engine = struct.pack("<Q", size - 0x38)
    return head[:16] + struct.pack("<Q", size) + head[24:48] + engine + head[56:] + content


class FakeBackend(Session):
    """Stands for the backend of any plan: it proves what is handed to a session, and no numbers.

    Its outputs are those of `answer`.
    """

    name = "fake"

    def __init__(self) -> None:
        self.opened: list[Any] = []
        self.code_allowed: list[bool] = []
        self.shapes: list[Any] = []
        self.answer: Any = lambda *inputs: [torch.zeros(shape) for shape in self.shapes[-1]]

    def can_run(self, device: str) -> Verdict:
        return YES

    def accepts(self, engine: Any, device: torch.device) -> Verdict:
        return YES

    def open(self, engine: Any, *args: Any, options: OpenOptions, **others: Any) -> Any:
        self.opened.append(engine)
        self.code_allowed.append(options.trusted_host_code)
        return self

    def run(self, inputs: Sequence[torch.Tensor], shapes: Any) -> list[torch.Tensor]:
        self.shapes.append(shapes)
        return list(self.answer(*inputs))
