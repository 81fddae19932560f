"""A step of a decoder with a static key-value cache in buffers, over that of torch.compile.

CPU time of one thread, contenders in turn in one process. "copied" is the same engine called
through the program's graph, as after `torch.export.load`: whole caches come out and are copied
back. Memory is what a step takes from the system anew (minor page faults), such as an output of the
size of a cache.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import resource
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import portrt

HEADS, SIZE, LAYERS = 8, 64, 4
WIDTH = HEADS * SIZE


class Decoder(nn.Module):
    """Attention and a two-layer perceptron, four times, for one token at a position."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length
        self.mix = nn.ModuleList(nn.Linear(WIDTH, 3 * WIDTH) for _ in range(LAYERS))
        self.up = nn.ModuleList(nn.Linear(WIDTH, 4 * WIDTH) for _ in range(LAYERS))
        self.down = nn.ModuleList(nn.Linear(4 * WIDTH, WIDTH) for _ in range(LAYERS))
        for layer in range(LAYERS):
            for name in "kv":
                self.register_buffer(f"{name}{layer}", torch.zeros(1, HEADS, length, SIZE))

    def forward(self, x: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        seen = (torch.arange(self.length) <= at[:, None])[None, None]
        for layer in range(LAYERS):
            q, k, v = self.mix[layer](x).view(1, 1, 3, HEADS, SIZE).permute(2, 0, 3, 1, 4)
            keys, values = getattr(self, f"k{layer}"), getattr(self, f"v{layer}")
            keys.index_copy_(2, at, k)
            values.index_copy_(2, at, v)
            out = nn.functional.scaled_dot_product_attention(q, keys, values, attn_mask=seen)
            x = x + out.transpose(1, 2).reshape(x.shape)
            x = x + self.down[layer](nn.functional.relu(self.up[layer](x)))
        return x


def measure(megabytes: int, steps: int, rows: int) -> dict[str, Any]:
    """Return the figures of each contender for a cache of this size."""
    torch.manual_seed(0)
    length = megabytes * 2**20 // (2 * LAYERS * WIDTH * 4)
    model, x = Decoder(length).eval(), torch.randn(1, 1, WIDTH)
    module: Any = portrt.compile(
        copy.deepcopy(model),
        inputs=[x, torch.tensor([0])],
        engines="onnxruntime",
        output_format="module",
    )
    contenders: dict[str, Callable[..., Any]] = {
        "portrt": module,
        "copied": lambda *args: nn.Module.__call__(module, *args),
        "torch.compile": torch.compile(copy.deepcopy(model)),
        "eager": model,
    }
    times: dict[str, list[float]] = {name: [] for name in contenders}
    faults: dict[str, list[int]] = {name: [] for name in contenders}
    for row in range(rows + 1):
        for name, call in contenders.items():
            pages = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            started = time.process_time()
            for step in range(steps):
                call(x, torch.tensor([step]))
            if row:  # the first warms up
                times[name].append((time.process_time() - started) / steps)
                pages = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - pages
                faults[name].append(pages * resource.getpagesize() // steps)
    best = statistics.median(times["torch.compile"])
    return {
        name: {
            "ms": round(statistics.median(times[name]) * 1e3, 3),
            "over torch.compile": round(statistics.median(times[name]) / best, 2),
            "new memory in bytes": statistics.median(faults[name]),
        }
        for name in contenders
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rows", type=int, default=5)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with torch.no_grad():
        for megabytes in args.megabytes:
            print(f"cache of {megabytes} MB, load {os.getloadavg()[0]:.1f}", flush=True)
            found = measure(megabytes, args.steps, args.rows)
            for name, figures in found.items():
                print(f"  {name:14} {json.dumps(figures)}", flush=True)


if __name__ == "__main__":
    main()
