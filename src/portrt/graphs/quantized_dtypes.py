"""int8 and float8: dtypes of weights and of numbers on their way, in which engines do not add."""

from __future__ import annotations

import torch

aten = torch.ops.aten

# Dtypes that numbers are quantized to. uint8 is a dtype of pictures as well.
QUANTIZED = frozenset({torch.int8, torch.float8_e4m3fn})

# Operators that move numbers and do not look at them: they commute with a conversion.
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
