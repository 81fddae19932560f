"""GPU memory of one program that runs as several engines, over its weights.

    python benchmarks/gpu_memory.py --json RESULT.json

A BERT-base in float16 runs as an `inductor` engine, as its source, and as its source in a CUDA
graph, one after another in one process. What stays allocated is the weights and what the sessions
keep; the peak has the tensors of a call, too.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from main import versions
from peer_models import GPU_MODELS

import portrt


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    model, inputs = GPU_MODELS["BERT-base b8 s128"](options.tiny)
    model, inputs = model.eval().half().cuda(), [item.cuda() for item in inputs]
    weights = sum(item.nbytes for item in [*model.parameters(), *model.buffers()])
    figures: dict[str, Any] = {"versions": versions(), "device": torch.cuda.get_device_name()}
    figures["weights_bytes"] = weights
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt2"
        program = portrt.compile(model, inputs=inputs, engines="inductor")
        portrt.save(program, path)
        del program, model
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        module = portrt.load(path, output_format="module", trust="host-code")
        for name, policy in {
            "inductor": {},
            "source": {"engines": "onnxruntime"},
            "source with CUDA graphs": {"engines": "onnxruntime", "cuda_graphs": 8},
        }.items():
            with portrt.runtime.policy(**policy):
                for _ in range(3):
                    module(*inputs)
            torch.cuda.synchronize()
            kept = torch.cuda.memory_allocated() - before
            peak = torch.cuda.max_memory_allocated() - before
            figures[name] = {
                "kept_over_weights": round(kept / weights, 3),
                "peak_over_weights": round(peak / weights, 3),
            }
            options.json.write_text(json.dumps(figures, indent=1) + "\n")
            print(name, figures[name], flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
