"""The core ATen operators, as torch tags them."""

from __future__ import annotations

import torch


def core_operators() -> list[str]:
    """Names of the overloads, "aten.add.Tensor", in alphabetical order."""
    found = []
    for name in torch._C._dispatch_get_all_op_names():
        namespace, _, rest = name.partition("::")
        packet_name, _, overload_name = rest.partition(".")
        packet = getattr(torch.ops.aten, packet_name, None) if namespace == "aten" else None
        overload = getattr(packet, overload_name or "default", None)
        if overload is not None and torch.Tag.core in overload.tags:
            found.append(f"aten.{packet_name}.{overload_name or 'default'}")
    return sorted(found)


# Core operators whose result no engine can hold, with the reason.
NO_TENSORS = {
    "aten._local_scalar_dense.default": "returns a number that depends on data",
    "aten.sym_is_contiguous.default": "returns a truth about strides, known when exported",
    "aten.sym_numel.default": "returns a size, which is computed from input sizes outside engines",
    "aten.sym_size.int": "returns a size, which is computed from input sizes outside engines",
    "aten.sym_storage_offset.default": "returns a number known when the program is exported",
    "aten.sym_stride.int": "returns a stride, which is computed from input sizes outside engines",
}

# Core operators without a row, which count as outside of engines.
OUTSIDE = {"aten.resize_.default": "changes the storage of its input"}
