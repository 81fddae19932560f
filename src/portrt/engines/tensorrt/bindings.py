"""Matches the inputs and outputs of a block with the bindings of its engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from portrt.engines.tensorrt.engine import Binding, OpenedEngine
from portrt.errors import EngineError
from portrt.format.manifest import EngineSpec, Signature


@dataclass(frozen=True)
class Port:
    """An input or output of the block, and its binding.

    Attributes:
        index: Position in the block's call.
        name: Name of the binding.
        dtype: Type of the block's value, which may be wider than the binding's.
        binding: The engine's side.
    """

    index: int
    name: str
    dtype: torch.dtype
    binding: Binding

    @property
    def other_type(self) -> bool:
        """Return whether the engine has int32 where the block has int64."""
        return self.dtype != self.binding.dtype


def bindings_of(
    opened: OpenedEngine, spec: EngineSpec, signature: Signature
) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """Match the block's inputs and outputs with the engine's bindings.

    An engine may lack inputs: TensorRT removes those that no output depends on.

    Args:
        opened: The engine.
        spec: Its entry, with the names of its bindings where they are not the block's.
        signature: What the block takes and returns.

    Returns:
        The inputs that the engine takes, and the outputs.

    Raises:
        EngineError: The engine's bindings are not the block's inputs and outputs.
    """
    names = spec.build.get("bindings") or {}
    inputs = _ports(signature.inputs, names.get("inputs"), opened.inputs)
    outputs = _ports(signature.outputs, names.get("outputs"), opened.outputs)
    right = len(inputs) == len(opened.inputs) and len(outputs) == len(signature.outputs)
    right = right and len(opened.outputs) == len(outputs)
    for port in (*inputs, *outputs):
        wide = port.dtype == torch.int64 and port.binding.dtype == torch.int32
        right = right and (port.dtype == port.binding.dtype or wide)
    if not right:
        raise EngineError(
            f"the engine of {signature.name} takes {_listed(opened.inputs)} and gives "
            f"{_listed(opened.outputs)}",
            f"inputs among {[(item.name, item.dtype) for item in signature.inputs]} and outputs "
            f"{[(item.name, item.dtype) for item in signature.outputs]}, as in its manifest",
            "compile the model again; for a plan given to from_plan, correct its binding names",
        )
    return inputs, outputs


def _ports(specs: Sequence[Any], names: Any, bindings: dict[str, Binding]) -> tuple[Port, ...]:
    listed = isinstance(names, list) and len(names) == len(specs)
    wanted = [str(name) for name in names] if listed else [spec.name for spec in specs]
    return tuple(
        Port(index, name, getattr(torch, spec.dtype), bindings[name])
        for index, (spec, name) in enumerate(zip(specs, wanted, strict=True))
        if name in bindings
    )


def _listed(bindings: dict[str, Binding]) -> list[tuple[str, str]]:
    return [(item.name, str(item.dtype).removeprefix("torch.")) for item in bindings.values()]
