"""Models on a GPU: PyTorch, torch.compile and CUDA graphs beside portrt, as ratios of one run.

    python benchmarks/gpu_peers.py --json RESULT.json

One process a model, which times every contender in turn and writes each figure as soon as it has
it. `gpu_us` is the time of a call in a row of calls, by CUDA events; `host_us` the time until a
call returns. Ratios are over the fastest contender. `--tiny --device cpu` tries the code.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from main import versions
from torch import nn

ROUNDS, CALLS = 9, 20
OURS = ("portrt", "portrt graphs", "portrt inductor", "portrt inductor graphs")
CONTENDERS = ("eager", "eager graph", "torch.compile", "reduce-overhead", *OURS)


class Hidden(nn.Module):
    """A model of transformers with one output tensor."""

    def __init__(self, model: nn.Module, output: str) -> None:
        super().__init__()
        self.model, self.output = model, output

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.model(*inputs, return_dict=True)[self.output]
        return found


def bert(layers: int, width: int, batch: int, length: int) -> Callable[[bool], Any]:
    def make(tiny: bool) -> Any:
        from transformers import BertConfig, BertModel

        config = BertConfig(
            hidden_size=32 if tiny else width,
            num_hidden_layers=1 if tiny else layers,
            num_attention_heads=2 if tiny else width // (32 if width == 384 else 64),
            intermediate_size=64 if tiny else 4 * width,
        )
        tokens = torch.randint(0, config.vocab_size, (batch, length))
        mask = torch.ones(batch, length, dtype=torch.int64)
        mask[::2, length // 2 :] = 0
        return Hidden(BertModel(config), "last_hidden_state"), (tokens, mask)

    return make


def resnet(tiny: bool) -> Any:
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(depths=[1, 1, 1, 1]) if tiny else ResNetConfig()
    images = torch.randn(2 if tiny else 32, 3, 64 if tiny else 224, 64 if tiny else 224)
    return Hidden(ResNetForImageClassification(config), "logits"), (images,)


def vit(tiny: bool) -> Any:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(num_hidden_layers=1) if tiny else ViTConfig()
    return Hidden(ViTForImageClassification(config), "logits"), (torch.randn(8, 3, 224, 224),)


def llama(batch: int, length: int) -> Callable[[bool], Any]:
    def make(tiny: bool) -> Any:
        from transformers import LlamaConfig, LlamaForCausalLM

        config = LlamaConfig(
            hidden_size=64 if tiny else 2048,
            intermediate_size=128 if tiny else 8192,
            num_hidden_layers=1 if tiny else 16,
            num_attention_heads=2 if tiny else 32,
            num_key_value_heads=2 if tiny else 8,
            vocab_size=1000 if tiny else 32000,
            use_cache=False,
        )
        tokens = torch.randint(0, config.vocab_size, (batch, 8 if tiny else length))
        return Hidden(LlamaForCausalLM(config), "logits"), (tokens,)

    return make


MODELS = {
    "MiniLM b32 s128": bert(6, 384, 32, 128),
    "MiniLM b1 s32": bert(6, 384, 1, 32),
    "BERT-base b8 s128": bert(12, 768, 8, 128),
    "ResNet-50 b32": resnet,
    "ViT-B/16 b8": vit,
    "Llama 1 B, prefill b1 s512": llama(1, 512),
}


class Run:
    """One model, and the calls of its contenders.

    Args:
        name: Of MODELS.
        device: "cuda", or "cpu" to try the code.
        tiny: Small sizes, to try the code.
        folder: For the compiled program.
    """

    def __init__(self, name: str, device: str, tiny: bool, folder: Path) -> None:
        torch.manual_seed(0)
        model, inputs = MODELS[name](tiny)
        dtype = torch.float16 if device == "cuda" else torch.float32
        self.model = model.eval().to(device, dtype)
        self.inputs = [
            item.to(device, dtype if item.is_floating_point() else item.dtype) for item in inputs
        ]
        self.device, self.path = device, folder / "model.pt2"

    def compile(self) -> None:
        """Compile with portrt, and save."""
        import portrt

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = portrt.compile(self.model, inputs=self.inputs, engines="inductor")
        portrt.save(program, self.path)

    def call(self, contender: str) -> Callable[[], Any]:
        model, inputs = self.model, self.inputs
        if contender == "eager":
            return lambda: model(*inputs)
        if contender == "eager graph":
            return graphed(lambda: model(*inputs))
        if contender == "torch.compile":
            compiled = torch.compile(model, dynamic=False)
            return lambda: compiled(*inputs)
        if contender == "reduce-overhead":
            fast = torch.compile(model, dynamic=False, mode="reduce-overhead")
            return lambda: fast(*inputs)
        import portrt

        options: dict[str, Any] = {"trust": "host-code"}
        if "inductor" not in contender:
            options = {"engines": "onnxruntime"}  # none is stored: the source runs
        if "graphs" in contender:
            options["cuda_graphs"] = 8
        module = portrt.load(self.path, output_format="module", **options)
        return lambda: module(*inputs)

    def wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def figures(self, contender: str, wanted: torch.Tensor) -> dict[str, Any]:
        started = time.perf_counter()
        call = self.call(contender)
        for _ in range(4):
            found = call()
        self.wait()
        seconds = time.perf_counter() - started
        error = ((found - wanted).double().norm() / wanted.double().norm()).item()
        gpu, host = [], []
        for _ in range(ROUNDS):
            self.wait()
            begin = time.perf_counter()
            for _ in range(CALLS):
                call()
            self.wait()
            gpu.append((time.perf_counter() - begin) / CALLS * 1e6)
            for _ in range(3):
                self.wait()
                begin = time.perf_counter()
                call()
                host.append((time.perf_counter() - begin) * 1e6)
        return {
            "gpu_us": round(statistics.median(gpu), 1),
            "spread": round(max(gpu) / min(gpu), 2),
            "host_us": round(statistics.median(host), 1),
            "first_calls_s": round(seconds, 1),
            "relative_error": float(f"{error:.2g}"),
        }


def graphed(call: Callable[[], Any]) -> Callable[[], Any]:
    """The call as a CUDA graph, with inputs that stay where they are."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = call()

    def replay() -> Any:
        graph.replay()
        return kept

    return replay


def one(options: argparse.Namespace) -> None:
    """Time a model's contenders; writes each figure at once."""
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        run = Run(options.model, options.device, options.tiny, Path(folder))
        result: dict[str, Any] = {}

        def note(key: str, value: Any) -> None:
            result[key] = value
            options.json.write_text(json.dumps(result))

        started = time.perf_counter()
        try:
            run.compile()
            note("compile_s", round(time.perf_counter() - started, 1))
        except Exception as err:
            note("compile_error", f"{type(err).__name__}: {err}"[:400])
        (options.json.with_suffix(".ready")).touch()
        while options.go is not None and not options.go.exists():  # models are timed in turn
            time.sleep(0.2)
        wanted = run.model(*run.inputs)
        for contender in CONTENDERS:
            if options.device == "cpu" and ("graph" in contender or contender == "reduce-overhead"):
                continue
            try:
                note(contender, run.figures(contender, wanted))
            except Exception as err:
                note(contender, {"error": f"{type(err).__name__}: {err}"[:400]})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    parser.add_argument("--go", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--only", default="", help="models, comma separated; all by default")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--minutes", type=float, default=8.5, help="time after which it stops")
    options = parser.parse_args()
    if options.model:
        one(options)
        return 0
    end = time.monotonic() + options.minutes * 60
    names = [name for name in MODELS if not options.only or name in options.only.split(",")]
    folder = options.json.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    running = []
    for index, name in enumerate(names):  # they compile side by side
        path, go = folder / f"{index}.json", folder / f"{index}.go"
        command = [sys.executable, __file__, "--json", str(path), "--model", name, "--go", str(go)]
        command += ["--device", options.device, *(["--tiny"] if options.tiny else [])]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PORTRT_CACHE_DIR": "off"}
        running.append((name, path, go, subprocess.Popen(command, env=environment)))
    while any(p.poll() is None and not f.with_suffix(".ready").exists() for _, f, _, p in running):
        if time.monotonic() > end:
            break
        time.sleep(0.5)
    figures: dict[str, Any] = {"versions": versions(), "device": options.device}
    if options.device == "cuda":
        figures["device"] = torch.cuda.get_device_name()
    for name, path, go, process in running:
        go.touch()
        try:
            process.wait(max(end - time.monotonic(), 1))
        except subprocess.TimeoutExpired:
            process.kill()
        found = json.loads(path.read_text()) if path.exists() else {"error": "nothing"}
        timed = {
            key: item["gpu_us"]
            for key, item in found.items()
            if isinstance(item, dict) and "gpu_us" in item
        }
        for key, value in timed.items():
            found[key]["ratio"] = round(value / min(timed.values()), 2)
        figures[name] = found
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
        print(name, {key: found[key]["ratio"] for key in timed}, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
