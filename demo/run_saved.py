"""Runs a saved program: `python run_saved.py FILE TOKENIZER SENTENCES`. Imports no portrt."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from tokenizers import Tokenizer

VENDORS = ("onnx", "onnxruntime", "onnxscript", "tensorrt", "tensorrt_rtx")


def encode(tokenizer: Any, sentences: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask, padded to the longest sentence."""
    tokenizer.enable_padding()
    tokenizer.enable_truncation(256)
    encoded = tokenizer.encode_batch(sentences)
    ids = torch.tensor([item.ids for item in encoded])
    return ids, torch.tensor([item.attention_mask for item in encoded])


def batches(sentences: list[str]) -> list[list[str]]:
    """Batches of 1, 2, 3, ... sentences: every one has another shape."""
    found: list[list[str]] = []
    start = 0
    while start < len(sentences):
        size = len(found) + 1
        found.append(sentences[start : start + size])
        start += size
    return found


def median_ms(call: Callable[[], Any], count: int = 20) -> float:
    """Median time of a call in milliseconds, after three that do not count."""
    times = []
    for _ in range(count + 3):
        started = time.perf_counter()
        call()
        times.append((time.perf_counter() - started) * 1e3)
    return sorted(times[3:])[count // 2]


def main() -> None:
    file, tokenizer_file, sentences_file = sys.argv[1:]
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("portrt").addHandler(handler)
    logging.getLogger("portrt").setLevel(logging.INFO)
    tokenizer = Tokenizer.from_file(tokenizer_file)
    with open(sentences_file, encoding="utf-8") as stream:
        sentences = json.load(stream)
    started = time.perf_counter()
    model = torch.export.load(file).module()
    loaded = time.perf_counter()
    parts = [encode(tokenizer, batch) for batch in batches(sentences)]
    first = model(*parts[0])
    called = time.perf_counter()
    rest = [model(*part) for part in parts[1:]]
    one = encode(tokenizer, sentences[:1])
    many = encode(tokenizer, sentences)
    result = {
        "embeddings": torch.cat([first, *rest]).tolist(),
        "load_s": loaded - started,
        "first_s": called - loaded,
        "ms_one": median_ms(lambda: model(*one)),
        "ms_all": median_ms(lambda: model(*many)),
        "log": lines,
        "imported": [name for name in VENDORS if name in sys.modules],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
