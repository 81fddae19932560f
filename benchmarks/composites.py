"""Composite operators whole against the same mathematics in plain operators, on ONNX Runtime.

Both forms go through portrt.compile, and run in one process, in turn; the median counts, and the
spread of the pairs' ratios says how far to trust it. Sizes are those of real models.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import torch.onnx.ops
from rich.console import Console
from rich.table import Table
from torch.nn import functional

import portrt

Form = Callable[..., torch.Tensor]
# One thread, so that its CPU time is that of the call.
THREADS = 1


@dataclass(frozen=True)
class Row:
    """One operator at one size: a function of tensors, twice."""

    name: str
    whole: Form
    plain: Form
    shapes: tuple[tuple[int, ...], ...]


class AsModule(torch.nn.Module):
    def __init__(self, function: Form) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.function(*inputs)


def products(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: Any = None) -> torch.Tensor:
    """Attention in products and a softmax; fewer heads of k and v are repeated."""
    groups = q.shape[1] // k.shape[1]
    if groups > 1:
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    scores = q @ k.transpose(-1, -2) * (1 / math.sqrt(q.shape[-1]))
    return torch.softmax(scores if mask is None else scores + mask, -1) @ v


def causal_products(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    above = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).triu(1)
    return products(q, k, v, torch.zeros(above.shape).masked_fill(above, float("-inf")))


def attention(**options: Any) -> Form:
    return lambda q, k, v, *mask: functional.scaled_dot_product_attention(q, k, v, *mask, **options)


def layer_norm(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    centered = x - x.mean(-1, keepdim=True)
    variance = (centered * centered).mean(-1, keepdim=True)
    return centered / torch.sqrt(variance + 1e-5) * w + b


def rms_norm(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * w


def group_norm(groups: int) -> Form:
    def normalized(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        y = x.reshape(x.shape[0], groups, -1)
        centered = y - y.mean(-1, keepdim=True)
        y = centered / torch.sqrt((centered * centered).mean(-1, keepdim=True) + 1e-5)
        sizes = (1, -1) + (1,) * (x.dim() - 2)
        return y.reshape(x.shape) * w.reshape(sizes) + b.reshape(sizes)

    return normalized


def gelu(x: torch.Tensor) -> torch.Tensor:
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def tanh_gelu(x: torch.Tensor) -> torch.Tensor:
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """As transformers writes it; cos and sin are [1, length, size / 2]."""
    cos, sin = (torch.cat([part, part], -1)[:, None] for part in (cos, sin))
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin


def rotary(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    return torch.onnx.ops.rotary_embedding(x, cos, sin)


def whole_rotary(x: Any, cos: Any, sin: Any) -> Any:
    """The translation that keeps it one node: portrt takes it apart."""
    from onnxscript import opset23

    return opset23.RotaryEmbedding(x, cos, sin)


BERT = ((1, 12, 128, 64),) * 3
LLAMA = ((1, 32, 256, 128), (1, 8, 256, 128), (1, 8, 256, 128))
STEP = ((1, 32, 1, 128), (1, 8, 1024, 128), (1, 8, 1024, 128))
UNET = ((2, 8, 1024, 40),) * 3
ROWS = [
    Row("attention, BERT-base, 128 tokens", attention(), products, BERT),
    Row("attention with a mask", attention(), products, (*BERT, (1, 1, 128, 128))),
    Row("attention, UNet, 1024 pixels", attention(), products, UNET),
    Row("attention, causal, 256 tokens", attention(is_causal=True), causal_products, LLAMA[:1] * 3),
    Row(
        "attention, causal, 32 heads on 8",
        attention(is_causal=True, enable_gqa=True),
        causal_products,
        LLAMA,
    ),
    Row("attention, decoder step, 32 heads on 8", attention(enable_gqa=True), products, STEP),
    Row(
        "layer norm, 128 x 768",
        lambda x, w, b: functional.layer_norm(x, (768,), w, b),
        layer_norm,
        ((1, 128, 768), (768,), (768,)),
    ),
    Row(
        "RMS norm, 256 x 4096",
        lambda x, w: functional.rms_norm(x, (4096,), w, 1e-6),
        rms_norm,
        ((1, 256, 4096), (4096,)),
    ),
    Row(
        "group norm, 320 x 64 x 64",
        lambda x, w, b: functional.group_norm(x, 32, w, b),
        group_norm(32),
        ((1, 320, 64, 64), (320,), (320,)),
    ),
    Row(
        "instance norm, 64 x 128 x 128",
        lambda x, w, b: functional.instance_norm(x, weight=w, bias=b),
        group_norm(64),
        ((1, 64, 128, 128), (64,), (64,)),
    ),
    Row("GELU, 128 x 3072", functional.gelu, gelu, ((1, 128, 3072),)),
    Row(
        "GELU by tanh, 128 x 3072",
        lambda x: functional.gelu(x, approximate="tanh"),
        tanh_gelu,
        ((1, 128, 3072),),
    ),
    Row("SiLU, 256 x 11008", functional.silu, lambda x: x * torch.sigmoid(x), ((1, 256, 11008),)),
    Row("rotary embedding, 32 heads", rotary, rotated, (LLAMA[0], (1, 256, 64), (1, 256, 64))),
]


def compiled(function: Form, inputs: list[torch.Tensor]) -> tuple[torch.nn.Module, list[str]]:
    """The program, and the kinds of its ONNX nodes."""
    import onnx

    from portrt.runtime.calls import engine_calls

    program: Any = portrt.compile(
        AsModule(function).eval(),
        inputs=inputs,
        translations={torch.ops.onnx.RotaryEmbedding.opset23: whole_rotary},
        engines="onnxruntime",
        require_full_compilation=True,
        min_block_size=1,
        cache_dir="off",
        output_format="exported_program",
    )
    (call,) = engine_calls(program)
    names = program.graph_signature.inputs_to_lifted_tensor_constants
    blob = program.constants[names[call.args[1][-1].name]]
    nodes = onnx.load_model_from_string(blob.numpy().tobytes()).graph.node
    return program.module(), sorted({node.op_type for node in nodes})


def seconds(module: torch.nn.Module, inputs: list[torch.Tensor], calls: int) -> float:
    """CPU time of a call: all of it is in this thread, and others on the machine add none."""
    started = time.thread_time()
    for _ in range(calls):
        module(*inputs)
    return (time.thread_time() - started) / calls


def measure(row: Row, pairs: int) -> dict[str, Any]:
    torch.manual_seed(0)
    inputs = [torch.randn(shape) for shape in row.shapes]
    (whole, kinds), (plain, plain_kinds) = (compiled(f, inputs) for f in (row.whole, row.plain))
    difference = (whole(*inputs) - plain(*inputs)).abs().max()
    assert difference < 1e-3, f"{row.name}: the two forms differ by {difference}"
    calls = max(1, int(0.02 / seconds(plain, inputs, 3)))
    times = [
        (seconds(whole, inputs, calls), seconds(plain, inputs, calls)) for _ in range(pairs + 1)
    ][1:]
    ratios = sorted(a / b for a, b in times)
    return {
        "operator": row.name,
        "whole_ms": round(1e3 * statistics.median(a for a, _ in times), 4),
        "plain_ms": round(1e3 * statistics.median(b for _, b in times), 4),
        "ratio": round(statistics.median(ratios), 3),
        "quartiles": [round(ratios[len(ratios) // 4], 3), round(ratios[3 * len(ratios) // 4], 3)],
        "whole": kinds,
        "plain": plain_kinds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=25, help="measurements of each form")
    parser.add_argument("--only", default="", help="rows whose names have this in them")
    parser.add_argument("--json", type=Path, help="also write the table as JSON")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(THREADS)
    found = [measure(row, options.pairs) for row in ROWS if options.only in row.name]
    table = Table("operator", "whole, ms", "plain, ms", "whole over plain", "quartiles", "as")
    for item in found:
        low, high = item["quartiles"]
        cells = (f"{item[key]:.3f}" for key in ("whole_ms", "plain_ms", "ratio"))
        table.add_row(
            item["operator"], *cells, f"{low:.2f} to {high:.2f}", ", ".join(item["whole"])
        )
    Console(width=150).print(table)
    if options.json:
        where = {
            "date": date.today().isoformat(),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, {THREADS} thread",
            "load": round(os.getloadavg()[0], 1),
            "torch": torch.__version__,
            "onnxruntime": metadata.version("onnxruntime"),
        }
        options.json.write_text(json.dumps({**where, "rows": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
