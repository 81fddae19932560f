"""Large models once each, on the CPU: seconds and memory of compile, file and first call.

`python benchmarks/large_models.py [--json FILE] [NAME ...]`; each in a process of its own, with
random weights, against eager PyTorch.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from main import versions
from models import environment

GB = 1 << 30


def decoder_1b() -> tuple[Any, dict[str, Any]]:
    """Llama 3.2 1B's sizes, 1.2 billion parameters in bfloat16."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_default_dtype(torch.bfloat16)
    config = LlamaConfig(
        vocab_size=128256,
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=64,
        tie_word_embeddings=True,
        use_cache=False,
    )
    model = LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    return model, {"input_ids": torch.randint(0, 128256, (1, 16))}


def vit_large() -> tuple[Any, dict[str, Any]]:
    """ViT-L/16, 304 million parameters in float32."""
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096
    )
    return ViTModel(config), {"pixel_values": torch.randn(1, 3, 224, 224)}


def unet_sd() -> tuple[Any, dict[str, Any]]:
    """The UNet of Stable Diffusion 1.5, 860 million parameters in float32, at 256 x 256 pixels."""
    from diffusers import UNet2DConditionModel

    model = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
    return model, {
        "sample": torch.randn(1, 4, 32, 32),
        "timestep": torch.tensor([500]),
        "encoder_hidden_states": torch.randn(1, 77, 768),
    }


MODELS: dict[str, Callable[[], tuple[Any, dict[str, Any]]]] = {
    "decoder_1b": decoder_1b,
    "vit_large": vit_large,
    "unet_sd": unet_sd,
}


def first_tensor(result: Any) -> torch.Tensor:
    found: torch.Tensor = (
        result if isinstance(result, torch.Tensor) else next(iter(result.values()))
    )
    return found


def measure(name: str) -> dict[str, Any]:
    from zoo.compiled import engine_count
    from zoo.measure import peak_mb, reset_peak

    import portrt

    torch.manual_seed(0)
    model, arguments = MODELS[name]()
    model.eval()
    weights = {id(p): p.numel() * p.element_size() for p in model.parameters()}
    row: dict[str, Any] = {
        "parameters": sum(p.numel() for p in {id(p): p for p in model.parameters()}.values()),
        "weights_gb": round(sum(weights.values()) / GB, 2),
    }
    with torch.no_grad():
        started = time.perf_counter()
        wanted = first_tensor(model(**arguments)).clone()
        row["eager_call_s"] = round(time.perf_counter() - started, 2)
    reset_peak()
    row["before_compile_gb"] = round(peak_mb() / 1024, 2)
    started = time.perf_counter()
    program = portrt.compile(
        model, arg_inputs=(), kwarg_inputs=arguments, engines="onnxruntime",
        output_format="exported_program",
    )  # fmt: skip
    row["compile_s"] = round(time.perf_counter() - started, 1)
    row["compile_peak_gb"] = round(peak_mb() / 1024, 2)
    row["engines"] = engine_count(program)
    del model
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt2"
        started = time.perf_counter()
        portrt.save(program, path)
        row["save_s"] = round(time.perf_counter() - started, 1)
        row["file_gb"] = round(path.stat().st_size / GB, 2)
        del program
        reset_peak()
        started = time.perf_counter()
        module = portrt.load(path).module()
        found = first_tensor(module(**arguments))
        row["load_and_first_call_s"] = round(time.perf_counter() - started, 1)
        row["run_peak_gb"] = round(peak_mb() / 1024, 2)
        started = time.perf_counter()
        module(**arguments)
        row["call_s"] = round(time.perf_counter() - started, 2)
    gap = (found.double() - wanted.double()).abs().max() / wanted.double().abs().max()
    row["max_error"] = float(f"{float(gap):.2g}")
    return row


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(MODELS))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--here", type=Path, help="measure one, in this process, to this file")
    options = parser.parse_args()
    if options.here:
        options.here.write_text(json.dumps(measure(options.names[0])))
        return 0
    rows = json.loads(options.json.read_text())["models"] if _exists(options.json) else {}
    failed = False
    for name in options.names:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "row.json"
            command = [sys.executable, __file__, name, "--here", str(out)]
            done = subprocess.run(command, env=environment(), check=False)
            rows[name] = (
                json.loads(out.read_text()) if out.exists() else {"failed": done.returncode}
            )
        failed |= "failed" in rows[name]
        print(name, json.dumps(rows[name]), flush=True)
        if options.json:
            text = json.dumps({"versions": versions(), "models": rows}, indent=1)
            options.json.write_text(text + "\n")
    return int(failed)


def _exists(path: Path | None) -> bool:
    return path is not None and path.exists()


if __name__ == "__main__":
    sys.exit(main())
