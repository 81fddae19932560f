"""Containers that the tests' models take and give; importing it registers them with torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.utils import _pytree as pytree


class Point(NamedTuple):
    x: torch.Tensor
    y: torch.Tensor | None


@dataclass
class Batch:
    rows: torch.Tensor
    names: dict[str, torch.Tensor]
    weight: float = 1.0


torch.export.register_dataclass(Batch, serialized_type_name="containers.Batch")
pytree._register_namedtuple(Point, serialized_type_name="containers.Point")
