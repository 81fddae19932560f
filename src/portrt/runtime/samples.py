"""Random inputs of a block, of sizes that its manifest names."""

from __future__ import annotations

import torch

from portrt.package import expr
from portrt.package.manifest import Dimension, Manifest
from portrt.package.signature import random_tensor


def random_block_inputs(
    manifest: Manifest, seed: int, device: torch.device | str = "cpu", bound: str = "best"
) -> tuple[torch.Tensor, ...]:
    """Inputs, reproducible by `seed`; whole numbers are 0 or 1, valid indices of any table.

    Args:
        manifest: The block.
        seed: Of the numbers.
        device: Where they are put.
        bound: "best": the sizes that its engines are tuned for; "least": the smallest. Of the first
            profile, where there are several.
    """
    generator = torch.Generator().manual_seed(seed)
    shapes: list[list[int]] = []
    for spec in manifest.inputs:
        shapes.append([])
        for size in spec.shape:
            tree = _end(size, bound) if isinstance(size, Dimension) else size
            shapes[-1].append(int(expr.evaluate(tree, lambda i, a: shapes[i][a])))
    return tuple(
        random_tensor(shape, getattr(torch, spec.dtype), generator).to(device)
        for spec, shape in zip(manifest.inputs, shapes, strict=True)
    )


def _end(size: Dimension, bound: str) -> int:
    low, best, _ = size.profiles[0] if size.profiles else (size.least, size.best, size.most)
    return low if bound == "least" else best
