"""A program of 5 GB, a blob above 4 GB: `pytest -m slow`. Wants 12 GB of memory, 11 of disk."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from effort import reads_of

import portrt

COPIES, WIDTH = 20, 8192
MEMORY_BYTES = 12 * 10**9
DISK_BYTES = 13 * 10**9


class Large(torch.nn.Module):
    """5.4 GB of weights, all of them diagonal, so that the answer is known."""

    def __init__(self) -> None:
        super().__init__()
        weights = [torch.zeros(WIDTH, WIDTH).fill_diagonal_(1 + i / 8) for i in range(COPIES)]
        self.weights = torch.nn.ParameterList(
            torch.nn.Parameter(weight, requires_grad=False) for weight in weights
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for weight in self.weights:
            x = torch.relu(x @ weight)
        return x


IN_NEW_PROCESS = r"""
import json, re, sys, torch, portrt
from pathlib import Path
program = getattr({"portrt": portrt, "torch": torch.export}[sys.argv[2]], "load")(sys.argv[1])
# Not ru_maxrss, which begins with that of the process that started this one.
peak = int(re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[0]) * 1024
y = program.module()(torch.ones(1, %d))
print(json.dumps({"peak_after_load": peak, "first": float(y[0, 0]),
                  "same": bool((y == y[0, 0]).all())}))
"""


def _available_bytes() -> int:
    if not Path("/proc/meminfo").exists():
        return MEMORY_BYTES
    text = Path("/proc/meminfo").read_text()
    return int(re.findall(r"MemAvailable:\s+(\d+)", text)[0]) * 1024


@pytest.mark.slow
@pytest.mark.skipif(_available_bytes() < MEMORY_BYTES, reason="less than 12 GB of memory is free")
@pytest.mark.skipif(
    shutil.disk_usage(tempfile.gettempdir()).free < DISK_BYTES,
    reason="less than 13 GB is free in the folder of temporary files",
)
def test_five_gigabytes(tmp_path: Path) -> None:
    path = tmp_path / "large.pt2"
    program = portrt.compile(
        Large().eval(),
        inputs=[torch.ones(1, WIDTH)],
        engines="onnxruntime",
        cache_built_engines=False,
        output_format="exported_program",
    )
    portrt.save(program, path)
    del program
    weights = COPIES * WIDTH * WIDTH * 4
    assert weights < path.stat().st_size < weights * 1.01
    with reads_of(path) as reads:
        info = portrt.inspect(path)
    assert reads.opened and not reads.uncounted
    assert reads.count < 1 << 20
    assert info.weights_bytes > 2**32
    expected = 1.0
    for i in range(COPIES):
        expected *= 1 + i / 8
    for library in ("portrt", "torch"):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", IN_NEW_PROCESS % WIDTH, path, library],
            capture_output=True,
            text=True,
            check=True,
        )
        found = json.loads(done.stdout)
        assert found["same"]
        assert found["first"] == pytest.approx(expected, rel=1e-5)
        if library == "portrt":  # mapped: the blob is not read before it is used
            assert found["peak_after_load"] < weights / 4
