"""Makes the files that changed ones are made from, and runs workers over a range of seeds.

`python tests/hostile_run.py COUNT` tries so many, `hostile_run.py COUNT FIRST` those from FIRST.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from picky_backend import save_in_parts
from torch import nn
from torch.export import Dim

import portrt

BATCH = 1000


class Mixed(nn.Module):
    """Two blocks, with an operator of PyTorch's own between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
        inner = torch.relu(self.first(x) + y)
        noise = torch.bernoulli(torch.zeros_like(inner))
        return {"a": self.second(inner + noise), "b": inner.sum(0)}


class Counted(nn.Module):
    """Data-dependent sizes."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.nonzero(x > 0), x.sum(0)


class Branches(nn.Module):
    """A condition that stays in PyTorch, with an engine in a branch."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cond(
            x.sum() > 0,
            lambda x: self.linear(x) + torch.bernoulli(torch.zeros_like(x)),
            lambda x: self.linear(x) * 2,
            (x,),
        )


def write_bases(folder: Path) -> None:
    """Compile the programs, and save them as `base_*.pt2`."""
    batch = Dim("batch", min=1, max=16)
    mlp = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    models: dict[str, tuple[nn.Module, list[torch.Tensor]]] = {
        "mlp": (mlp, [torch.ones(3, 8)]),
        "mixed": (Mixed(), [torch.ones(3, 8), torch.ones(3, 16)]),
        "counted": (Counted(), [torch.ones(3, 8)]),
        "branches": (Branches(), [torch.ones(3, 8)]),
    }
    for name, (model, inputs) in models.items():
        program = portrt.compile(
            model.eval(),
            inputs=inputs,
            dynamic_shapes=tuple({0: batch} for _ in inputs),
            engines="onnxruntime",
            min_block_size=1,
            output_format="exported_program",
        )
        portrt.save(program, folder / f"base_{name}.pt2")
    save_in_parts(folder / "base_parts.pt2")


def attack(folder: Path, first: int, last: int, jobs: int) -> tuple[list[str], Counter[str]]:
    """Try the seeds from `first` up to `last`; return what is wrong, and how files were taken."""
    starts = range(first, last, BATCH)
    faults: list[str] = []
    counts: Counter[str] = Counter()
    with ThreadPoolExecutor(jobs) as pool:
        for found, taken in pool.map(lambda s: _batch(folder, s, min(s + BATCH, last)), starts):
            faults += found
            counts += taken
            sys.stdout.write("".join(f"{fault}\n" for fault in found))
            sys.stdout.flush()
    return faults, counts


def _batch(folder: Path, first: int, last: int) -> tuple[list[str], Counter[str]]:
    """Run workers until each seed was tried: a crash ends one, and the next goes on after it."""
    faults: list[str] = []
    counts: Counter[str] = Counter()
    while first < last:
        command = [sys.executable, str(Path(__file__).with_name("hostile_worker.py"))]
        done = subprocess.run(
            [*command, str(folder), str(first), str(last)],
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PORTRT_CACHE_DIR": "off"},
            check=False,
        )
        lines: list[dict[str, Any]] = [
            json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"')
        ]
        faults += [f"seed {line['seed']}: {line['fault']}" for line in lines if "fault" in line]
        counts.update(*(line["counts"] for line in lines if "counts" in line))
        if done.returncode == 0:
            break
        seed = folder / str(first) / "seed"
        if not seed.exists():
            raise RuntimeError(f"a worker did not start: {done.stderr[-2000:]}")
        first = int(seed.read_text())
        faults.append(f"seed {first}: ends the process ({done.returncode}): {done.stderr[-300:]}")
        first += 1
    return faults, counts


def main() -> None:
    """Try as many files as the command line has."""
    count, first = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        write_bases(Path(name))
        faults, counts = attack(Path(name), first, first + count, int(os.environ.get("JOBS", "1")))
    seconds = time.perf_counter() - started
    lines = [f"{count} files in {seconds:.0f} s, {len(faults)} faults"]
    lines += [f"{found:8} {label}" for label, found in sorted(counts.items())]
    sys.stdout.write("\n".join([*lines, ""]))
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
