"""What comparing with the model costs: compile with `check` as by default, over check="off".

Three models, dynamic batch, ONNX Runtime; both in one process, in turn, after one compilation that
is not counted. The median of the pairs' ratios counts, of CPU time: a compilation keeps one core
busy, and other processes may share it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("PORTRT_CACHE_DIR", "off")

import torch
from kept import keep
from rich.console import Console
from rich.table import Table
from steps import minilm

import portrt
from portrt.runtime.calls import manifests_of

# Largest accepted ratio.
BAR = 1.25

Model = tuple[Any, tuple[Any, ...], Any]


def resnet18() -> Model:
    """ResNet-18's sizes, random weights."""
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(
        hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], layer_type="basic", num_labels=1000
    )
    model = ResNetForImageClassification(config).eval()
    batch = torch.export.Dim("batch", min=1, max=16)
    return model, (torch.randn(2, 3, 224, 224),), ({0: batch},)


class Logits(torch.nn.Module):
    """A decoder without a cache: tokens to logits."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(
            input_ids=input_ids, attention_mask=attention_mask, use_cache=False
        ).logits
        return logits


def llama() -> Model:
    """A Llama of 8 layers, 512 wide, random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=8192,
        hidden_size=512,
        intermediate_size=1376,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=2,
    )
    torch.manual_seed(0)
    model = Logits(LlamaForCausalLM(config)).eval()
    ids = torch.randint(0, 8192, (2, 32))
    axes = {
        0: torch.export.Dim("batch", min=1, max=8),
        1: torch.export.Dim("length", min=2, max=256),
    }
    return model, (ids, torch.ones_like(ids)), (axes, axes)


MODELS: dict[str, Callable[[], Model]] = {"MiniLM": minilm, "ResNet-18": resnet18, "Llama": llama}


def seconds(model: Model, **options: Any) -> tuple[float, Any]:
    """Compile once, and return the CPU time with the program."""
    module, inputs, shapes = model
    started = time.process_time()
    program = portrt.compile(
        module,
        inputs=list(inputs),
        dynamic_shapes=shapes,
        engines="onnxruntime",
        output_format="exported_program",
        **options,
    )
    return time.process_time() - started, program


def measured(name: str, pairs: int) -> dict[str, Any]:
    """Time pairs of compilations of one model."""
    model = MODELS[name]()
    seconds(model, check="off")
    found: list[tuple[float, float]] = []
    for _ in range(pairs):
        without, _ = seconds(model, check="off")
        checked, program = seconds(model)
        found.append((without, checked))
    (text, *_) = manifests_of(program)
    return {
        "without_s": statistics.median(without for without, _ in found),
        "with_s": statistics.median(checked for _, checked in found),
        "ratio": statistics.median(checked / without for without, checked in found),
        "blocks": len(manifests_of(program)),
        "program": json.loads(text)["engines"][0]["check"]["program"],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=MODELS)
    parser.add_argument("--json", type=Path, help="file for the results")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = {name: measured(name, arguments.pairs) for name in arguments.models}
    table = Table(
        "model", "off, s", "checked, s", "ratio", "blocks", "inputs", "largest difference"
    )
    for name, row in rows.items():
        table.add_row(
            name,
            f"{row['without_s']:.2f}",
            f"{row['with_s']:.2f}",
            f"{row['ratio']:.2f}",
            str(row["blocks"]),
            f"{row['program']['compared']} + {row['program']['skipped']} skipped",
            f"{row['program']['max_rel']:.1e}",
        )
    Console(width=120).print(table)
    if arguments.json:
        keep(arguments.json, arguments.pairs, models=rows)
    return int(any(row["ratio"] > BAR for row in rows.values()))


if __name__ == "__main__":
    sys.exit(main())
