"""Calls of `portrt::Program` in C++ over those of a bare ONNX Runtime session in C.

    python benchmarks/cpp_program.py

CPU time of one thread, in turns of both in one process without Python; the median of the turns
counts. The session has the model that `torch.onnx.export` writes, and makes its values anew in
each call. Builds the C++ runtime in `build/` if needed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from main import versions

import portrt
from portrt.cpp.build import build
from portrt.cpp.compiler import compiler, run
from portrt.cpp.sources import ROOT

HERE = Path(__file__).parent
BARS = {"tiny MLP, batch 8": 1.6, "MiniLM, batch 1, length 32": 1.02}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the figures as JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = {}
    with tempfile.TemporaryDirectory(prefix="portrt-bench-") as name:
        folder = Path(name)
        built = build(HERE.parent / "build" / "cpp-runtime")
        source, program = HERE / "cpp" / "program_call.cpp", folder / "program_call"
        flags = ["-O2", f"-I{ROOT}", *built.flags_without_torch, "-ldl"]
        run([*compiler(), str(source), *flags, "-o", str(program)])
        layers = [torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 8)]
        mlp = torch.nn.Sequential(*layers).eval()
        rows = measured(program, folder, mlp, [torch.randn(8, 16)], calls=20000)
        found["tiny MLP, batch 8"] = rows
        found["MiniLM, batch 1, length 32"] = measured(
            program, folder, MiniLM(), [torch.randint(1000, (1, 32)), torch.ones(1, 32).long()]
        )
    for name, row in found.items():
        print(f"{name}: {row['ratio']}, bar {BARS[name]} ({row})")
    if options.json:
        text = json.dumps({"versions": versions(), "microseconds": found}, indent=2)
        options.json.write_text(text + "\n", encoding="utf-8")


class MiniLM(torch.nn.Module):
    """An encoder of MiniLM's sizes, with random weights."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel

        config = BertConfig(
            hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
        )
        torch.manual_seed(0)
        self.model = BertModel(config, add_pooling_layer=False).eval()

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> Any:
        return self.model(ids, attention_mask=mask).last_hidden_state


def measured(
    program: Path, folder: Path, model: torch.nn.Module, inputs: Sequence[Any], calls: int = 30
) -> dict[str, float]:
    model = model.eval()
    compiled = portrt.compile(
        model,
        inputs=list(inputs),
        engines="onnxruntime",
        min_block_size=1,
        output_format="exported_program",
    )
    portrt.save(compiled, folder / "model.pt2")
    exported = torch.onnx.export(model, tuple(inputs), dynamo=True, verbose=False)
    assert exported is not None
    exported.save(folder / "model.onnx", external_data=False)
    words = []
    for index, item in enumerate(inputs):
        (folder / f"in.{index}").write_bytes(item.numpy().tobytes())
        words.append(f"{folder / f'in.{index}'}:{','.join(map(str, item.shape))}")
    spec = find_spec("onnxruntime")
    assert spec is not None
    library = max(Path(str(spec.origin)).parent.glob("capi/libonnxruntime.so*"))
    command = [program, library, folder / "model.onnx", folder / "model.pt2", calls, 15, *words]
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=True, timeout=600
    )
    rows = [[float(word) for word in line.split()] for line in done.stdout.splitlines()]
    bare, ours, differences = (list(column) for column in zip(*rows, strict=True))
    assert max(differences) < 1e-4
    return {
        "session": round(statistics.median(bare), 2),
        "program": round(statistics.median(ours), 2),
        "ratio": round(statistics.median(a / b for a, b in zip(ours, bare, strict=True)), 3),
    }


if __name__ == "__main__":
    main()
