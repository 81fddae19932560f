"""int8 and float8: dtypes of weights and activations in which engines have no arithmetic."""

from __future__ import annotations

import torch

aten = torch.ops.aten

# Dtypes that values are quantized to. Not uint8, which images have too.
QUANTIZED = frozenset({torch.int8, torch.float8_e4m3fn})

# Operators that only move data: they commute with a conversion.
LAYOUTS = frozenset(
    {
        aten.expand.default,
        aten.permute.default,
        aten.reshape.default,
        aten.squeeze.dim,
        aten.squeeze.dims,
        aten.t.default,
        aten.transpose.int,
        aten.unsqueeze.default,
        aten.view.default,
    }
)
