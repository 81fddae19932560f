"""New weights for a compiled MiniLM: `update_weights` over a fresh compilation of the same model.

Dynamic batch and length, ONNX Runtime, in one process, after one compilation that is not counted.
Every tensor of the state dict gets different numbers each time, and the engine is compared with
PyTorch, as by default. The first update reads the source of the block, which later ones have: it is
in the results on its own. CPU time: both keep one core busy, and other processes may share it.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import sys
import time
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("PORTRT_CACHE_DIR", "off")

import torch
from kept import keep
from steps import minilm

import portrt

# Largest accepted ratio.
BAR = 0.1


def measured(pairs: int) -> dict[str, Any]:
    """Time pairs of a compilation and two updates; the numbers are checked after the timing."""
    model, inputs, shapes = minilm()
    options: dict[str, Any] = {"dynamic_shapes": shapes, "engines": "onnxruntime"}
    module = portrt.compile(model, inputs=list(inputs), **options)
    module(*inputs)
    rows = []
    for turn in range(pairs):
        started = time.process_time()
        portrt.compile(model, inputs=list(inputs), **options)
        compiled = time.process_time() - started
        times = {}
        for check in (True, False):
            other = copy.deepcopy(model)
            with torch.no_grad():
                for tensor in other.parameters():
                    tensor.mul_(1.0 + 0.01 * (turn + 1 + check))
            state = other.state_dict()
            started = time.process_time()
            update = module.update_weights(state, check=check)
            times[check] = time.process_time() - started
            assert not update.stale
            with torch.no_grad():
                torch.testing.assert_close(module(*inputs), other(*inputs), rtol=1e-3, atol=1e-3)
        rows.append((compiled, times[True], times[False]))
    first, *rows = rows
    return {
        "first_update_s": first[1],
        "first_ratio": first[1] / first[0],
        "tensors": len(state),
        "bytes": sum(tensor.nbytes for tensor in state.values()),
        "compile_s": statistics.median(row[0] for row in rows),
        "update_s": statistics.median(row[1] for row in rows),
        "update_unchecked_s": statistics.median(row[2] for row in rows),
        "ratio": statistics.median(row[1] / row[0] for row in rows),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--json", type=Path, help="file for the results")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    row = measured(arguments.pairs)
    print(
        f"compile {row['compile_s']:.2f} s, update {row['update_s']:.2f} s "
        f"(unchecked {row['update_unchecked_s']:.2f} s), ratio {row['ratio']:.3f}, bar {BAR}; "
        f"the first {row['first_update_s']:.2f} s, ratio {row['first_ratio']:.3f}"
    )
    if arguments.json:
        keep(arguments.json, arguments.pairs, MiniLM=row)
    return int(row["ratio"] > BAR)


if __name__ == "__main__":
    sys.exit(main())
