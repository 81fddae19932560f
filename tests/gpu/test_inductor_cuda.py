"""Inductor engines on a GPU: chosen by themselves, saved, loaded, one copy of the weights."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.export import Dim

import portrt
from portrt.compiler.backends.registry import builder
from portrt.errors import NoUsableEngineError
from portrt.runtime.select import FallbackWarning

ABLE = builder("inductor").can_build()
TENSORRT = builder("tensorrt").can_build()

pytestmark = [pytest.mark.skipif(not ABLE, reason=f"inductor cannot build here: {ABLE.reason}")]

BATCH = Dim("batch", min=1, max=64)
WIDTH = 2048


class Model(nn.Module):
    """Large weights, several outputs, attention and a convolution."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.large = nn.Linear(WIDTH, WIDTH)
        self.conv = nn.Conv1d(16, 16, 3, padding=1)
        self.table = nn.Embedding(10, 128)

    def forward(self, x: torch.Tensor, i: torch.Tensor) -> tuple[torch.Tensor, ...]:
        h = torch.relu(self.large(x)).reshape(-1, 16, 128)
        h = self.conv(h) + self.table(i)[:, None]
        h = nn.functional.scaled_dot_product_attention(h, h, h)
        return torch.special.bessel_j0(h.float()), h.argmax(-1), h.transpose(1, 2)


def inputs(batch: int, seed: int = 0) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, WIDTH, generator=rng).cuda().half()
    return [x, torch.randint(0, 10, (batch,), generator=rng).cuda()]


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return Model().eval().cuda().half()


@pytest.fixture(scope="module")
def program(model: nn.Module) -> Any:
    options: dict[str, Any] = {"engines": "inductor"} if TENSORRT else {}
    return portrt.compile(
        model,
        inputs=inputs(3),
        dynamic_shapes=({0: BATCH}, {0: BATCH}),
        output_format="exported_program",
        **options,
    )


@pytest.fixture(scope="module")
def path(program: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("inductor") / "model.pt2"
    portrt.save(program, found)
    return found


def equal(found: Any, wanted: Any) -> None:
    torch.testing.assert_close(found[0], wanted[0], rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(found[2], wanted[2], rtol=2e-2, atol=2e-2)
    rows = wanted[2].transpose(1, 2).float()  # elements that are nearly the largest
    chosen = rows.gather(-1, found[1][..., None])[..., 0]
    torch.testing.assert_close(chosen, rows.amax(-1), rtol=2e-2, atol=2e-2)


def test_it_is_chosen_for_cuda_tensors(program: Any) -> None:
    (block,) = portrt.runtime.report(program, "cuda")
    assert block.runs_as == "inductor"
    (cpu,) = portrt.runtime.report(program, "cpu")
    assert cpu.runs_as == "eager"


@pytest.mark.parametrize("graphs", [0, 4])
def test_numbers_at_each_size(path: Path, model: nn.Module, graphs: int) -> None:
    module = portrt.load(path, output_format="module", trust="host-code", fallback="error")
    kept = []
    with torch.no_grad(), portrt.runtime.cuda_graphs(most=graphs):
        for seed in range(3):
            for batch in (1, 3, 17, 64):
                given = inputs(batch, seed)
                before = [item.clone() for item in given]
                found = module(*given)
                equal(found, model(*given))
                assert all(map(torch.equal, given, before))
                kept.append((found, [item.clone() for item in found]))
        strided = torch.randn(WIDTH, 5).cuda().half().t()
        equal(module(strided, inputs(5)[1]), model(strided, inputs(5)[1]))
        shifted = torch.randn(5 * WIDTH + 1).cuda().half()[1:].view(5, WIDTH)
        assert shifted.data_ptr() % 16
        equal(module(shifted, inputs(5)[1]), model(shifted, inputs(5)[1]))
    for found, before in kept:
        assert all(map(torch.equal, found, before))


def test_it_is_not_opened_without_trust(path: Path, model: nn.Module) -> None:
    code = (
        "import sys, torch, portrt, warnings\n"
        "module = portrt.load(sys.argv[1], output_format='module')\n"
        "x, i = torch.zeros(3, 2048).cuda().half(), torch.zeros(3, dtype=torch.int64).cuda()\n"
        "with warnings.catch_warnings(record=True) as found:\n"
        "    warnings.simplefilter('always')\n"
        "    module(x, i)\n"
        "print([str(item.message) for item in found])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True,
        text=True,
        env={**os.environ, "PORTRT_CACHE_DIR": "off"},
    )
    assert done.returncode == 0, done.stderr
    assert "host-code" in done.stdout
    with (
        portrt.runtime.policy(engines="tensorrt", fallback="error"),
        pytest.raises(NoUsableEngineError),
    ):
        portrt.load(path, output_format="module")(*inputs(3))


def test_weights_are_on_the_gpu_once(path: Path, model: nn.Module) -> None:
    """Of three programs of one file, each with its engine: as many copies as programs; and no
    second copy where the source is opened beside an engine."""
    weights = sum(item.nbytes for item in model.parameters())
    gc.collect()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    module = portrt.load(path, output_format="module", trust="host-code")
    with torch.no_grad():
        module(*inputs(3))
    gc.collect()
    engine = torch.cuda.memory_allocated() - before
    assert weights <= engine < 1.2 * weights + (1 << 20)
    with torch.no_grad(), pytest.warns(FallbackWarning), portrt.runtime.policy(engines="tensorrt"):
        module(*inputs(3))
    gc.collect()
    both = torch.cuda.memory_allocated() - before
    assert both < 1.3 * weights + (1 << 20)
    del module
    gc.collect()
    assert torch.cuda.memory_allocated() - before < 0.1 * weights + (1 << 20)


def test_graphs_of_several_programs_share_a_workspace(path: Path, model: nn.Module) -> None:
    """Libraries keep tens of megabytes for each stream on which they ran."""
    kept, held = [], []
    given = inputs(3)
    with torch.no_grad(), portrt.runtime.cuda_graphs():
        for _ in range(4):
            module = portrt.load(path, output_format="module", trust="host-code")
            for _ in range(3):
                found = module(*given)
            equal(found, model(*given))
            kept.append(module)
            gc.collect()
            held.append(torch.cuda.memory_allocated())
    weights = sum(item.nbytes for item in model.parameters())
    assert held[-1] - held[1] < 2 * (1.2 * weights + (2 << 20))
