"""Plans as programs, and what PyTorch computes in their place."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from plans import PROFILES, model, plans_folder, sample

import portrt
from portrt.engines.registry import runtime

PLANS = plans_folder()
ABLE = runtime("tensorrt").can_run("cuda")

LARGEST = {"mlp": (256,), "resnet": (32,), "encoder": (32, 128)}

# Largest error relative to the output. Source of the first: TF32 has 10 bits of mantissa.
TOLERANCE = {"fp32": 2e-3, "fp16": 1e-2}


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    a, b = found.double().cpu(), wanted.double().cpu()
    return float((a - b).norm() / b.norm())


def plan(name: str, precision: str) -> Path:
    assert PLANS is not None
    return PLANS / f"{name}.{precision}.plan"


def adopted(name: str, precision: str, source: bool = False, **options: Any) -> Any:
    """A program of a plan, on a GPU."""
    assert PLANS is not None
    sizes = PROFILES[name]
    names = ["batch", "length"]
    dims = [torch.export.Dim(n, max=most) for n, most in zip(names, LARGEST[name], strict=False)]
    shapes = {key: dict(enumerate(dims)) for key in sizes}
    examples = dict(zip(sizes, sample(name, PLANS)[0], strict=True))
    width = {"mlp": 256, "resnet": 10, "encoder": 128}[name]
    given: dict[str, Any] = {"outputs": lambda *x: {"y": torch.empty(x[0].shape[0], width)}}
    if source:
        given = {"source": model(name, PLANS), "output_names": ["y"]}
    return portrt.from_plan(
        plan(name, precision),
        examples,
        dynamic_shapes=shapes,
        trust="host-code",
        version_compatible=True,
        lean_runtime="outside",
        **given,
        **options,
    )


def eager(name: str, inputs: list[torch.Tensor]) -> torch.Tensor:
    assert PLANS is not None
    with torch.no_grad():
        found: torch.Tensor = model(name, PLANS)(*inputs)
        return found


def on_gpu(inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    return [item.cuda() for item in inputs]


def in_threads(count: int, work: Callable[[int], None]) -> None:
    """Call a function with 0 to count - 1, each in a thread of its own, and wait for all."""
    threads = [threading.Thread(target=work, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
