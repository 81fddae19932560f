"""The core ATen operators, as torch tags them."""

from __future__ import annotations

import torch


def core_operators() -> list[str]:
    """Names of the overloads, "aten.add.Tensor", in alphabetical order."""
    found = []
    for packet_name in dir(torch.ops.aten):
        packet = getattr(torch.ops.aten, packet_name)
        for overload_name in getattr(packet, "overloads", list)():
            overload = getattr(packet, overload_name)
            if torch.Tag.core in overload.tags:
                found.append(f"aten.{packet_name}.{overload_name}")
    return sorted(found)


# Core operators whose result no engine can hold, with the reason.
NO_TENSORS = {
    "aten._local_scalar_dense.default": "returns a number that depends on data",
    "aten.sym_numel.default": "returns a size, which is computed from input sizes outside engines",
    "aten.sym_size.int": "returns a size, which is computed from input sizes outside engines",
    "aten.sym_storage_offset.default": "returns a number known when the program is exported",
    "aten.sym_stride.int": "returns a stride, which is computed from input sizes outside engines",
}
