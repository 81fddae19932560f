"""Programs that update buffers: eager's numbers, in the buffers' own memory.

The oracle is the same model in eager PyTorch, which updates its buffers in place.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import portrt
from portrt.engines.in_place import InPlaceShapes
from portrt.format.manifest import decode
from portrt.runtime.calls import manifests_of
from portrt.runtime.module import module_of

HEADS, LENGTH, SIZE, STEPS = 2, 64, 8, 50
DTYPES = [torch.float32, torch.float64, torch.float16, torch.int64, torch.bool]


class Decoder(nn.Module):
    """Attends to what it was called with so far; updates caches in several ways."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.mix = nn.Linear(HEADS * SIZE, 3 * HEADS * SIZE)
        self.register_buffer("k", torch.zeros(1, HEADS, LENGTH, SIZE))
        self.register_buffer("v", torch.zeros(1, HEADS, LENGTH, SIZE), persistent=False)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        q, k, v = self.mix(x).view(1, -1, 3, HEADS, SIZE).permute(2, 0, 3, 1, 4)
        self.k.index_copy_(2, at, k)
        self.v[:, :, at] = v
        self.calls += 1
        seen = (torch.arange(LENGTH) <= at[:, None])[None, None]
        out = nn.functional.scaled_dot_product_attention(q, self.k, self.v, attn_mask=seen)
        return out.transpose(1, 2).reshape(x.shape) + self.calls


class Caches(nn.Module):
    """One cache of each dtype, and what may not be computed in place."""

    def __init__(self) -> None:
        super().__init__()
        for index, dtype in enumerate(DTYPES):
            self.register_buffer(f"of_{index}", torch.ones(2, 3, 16, SIZE).to(dtype))
        self.register_buffer("read_before", torch.ones(2, 16, SIZE))
        self.register_buffer("first_dim", torch.ones(16, 4))
        self.register_buffer("last_dim", torch.ones(4, 16))
        self.register_buffer("sliced", torch.ones(2, 16, SIZE))

    def forward(self, rows: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        old = self.read_before * 2
        for index, dtype in enumerate(DTYPES):
            getattr(self, f"of_{index}")[:, :, at] = rows.to(dtype)
        self.read_before[:, at] = rows[:, 0] + 1
        self.first_dim[at] = rows[0, 0, :, :4]
        self.last_dim[:, at] = rows[0, 0, :, :4].T
        self.sliced[:, 2:4] = rows[:, 0, :2]
        return old + self.read_before + self.of_0.sum()


def compiled(model: nn.Module, *inputs: torch.Tensor, **options: Any) -> Any:
    options = {"engines": "onnxruntime", "min_block_size": 1, **options}
    return portrt.compile(
        model.eval(), inputs=list(inputs), output_format="exported_program", **options
    )


@pytest.fixture(scope="module")
def program() -> Any:
    return compiled(Decoder(), torch.randn(1, 1, HEADS * SIZE), torch.tensor([3]))


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[set[int]]:
    """The outputs of each call of an engine that were computed in an input."""
    calls: list[set[int]] = []
    make = InPlaceShapes.outputs

    def recorded(self: InPlaceShapes, engine: Any, signature: Any, inputs: Any) -> Any:
        found = make(self, engine, signature, inputs)
        taken = {id(item) for item in inputs}
        calls.append({index for index, item in enumerate(found) if id(item) in taken})
        return found

    monkeypatch.setattr(InPlaceShapes, "outputs", recorded)
    return calls


def fresh(program: Any) -> Any:
    """A module with buffers of its own; a deep copy of a module calls through the graph."""
    module = module_of(program)
    for name, _ in Decoder().named_buffers():
        setattr(module, name, getattr(module, name).clone())
    return module


def buffers(module: Any, model: nn.Module) -> dict[str, torch.Tensor]:
    found = dict(module.named_buffers())
    return {name: found[name] for name, _ in model.named_buffers()}


def check_steps(module: Any, model: nn.Module, steps: range) -> None:
    for step in steps:
        x, at = torch.randn(1, 1, HEADS * SIZE), torch.tensor([step % LENGTH])
        with torch.no_grad():
            torch.testing.assert_close(module(x, at), model(x, at), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(buffers(module, model), dict(model.named_buffers()))


def test_steps_are_eagers_and_buffers_stay_where_they_are(
    program: Any, written: list[set[int]]
) -> None:
    model, module = Decoder().eval(), fresh(program)
    places = {name: item.data_ptr() for name, item in buffers(module, model).items()}
    versions = {name: item._version for name, item in buffers(module, model).items()}
    check_steps(module, model, range(STEPS))
    found = buffers(module, model)
    assert {name: item.data_ptr() for name, item in found.items()} == places
    assert all(item._version >= versions[name] + STEPS for name, item in found.items())
    # Both caches in each call but the first, which goes through the graph.
    assert [len(call) for call in written] == [2] * (STEPS - 1)


def test_a_loaded_file_has_buffers_of_its_own(
    program: Any, written: list[set[int]], tmp_path: Path
) -> None:
    file = tmp_path / "decoder.pt2"
    portrt.save(program, file)
    modules = [
        *(portrt.load(file, output_format="module") for _ in range(2)),
        torch.export.load(file).module(),
    ]
    before = {name: item.clone() for name, item in program.named_buffers()}
    for module in modules:
        check_steps(module, Decoder().eval(), range(5))
    assert len(written) == 2 * 4
    torch.testing.assert_close(dict(program.named_buffers()), before)


def test_threads_with_modules_of_their_own(program: Any) -> None:
    # Made here: torch's generator, which the weights are drawn from, is that of all threads.
    pairs = [(fresh(program), Decoder().eval()) for _ in range(4)]

    def steps(pair: tuple[Any, nn.Module]) -> None:
        check_steps(*pair, range(20))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(steps, pairs))


def _not_contiguous(module: Any, model: Any) -> None:
    for one in (module, model):
        one.k = torch.zeros(1, LENGTH, HEADS, SIZE).transpose(1, 2)
        one.v = torch.zeros(1, LENGTH, HEADS, SIZE).transpose(1, 2)


def _parts_of_one_tensor(module: Any, model: Any) -> None:
    for one in (module, model):
        one.k, one.v = torch.zeros(2, 1, HEADS, LENGTH, SIZE)


@pytest.mark.parametrize(
    ("change", "count"), [(_not_contiguous, 0), (_parts_of_one_tensor, 2)], ids=["strided", "parts"]
)
def test_buffers_that_are_replaced(
    program: Any,
    written: list[set[int]],
    change: Callable[[Any, Any], None],
    count: int,
) -> None:
    model, module = Decoder().eval(), fresh(program)
    check_steps(module, model, range(2))
    written.clear()
    change(module, model)
    check_steps(module, model, range(2, 6))
    assert [len(call) for call in written] == [count] * 4


def test_memory_that_others_read_is_not_written_by_the_engine(
    program: Any, written: list[set[int]]
) -> None:
    """Calls through the graph are the oracle: in them the engine writes new tensors alone."""
    module, graph = fresh(program), fresh(program)
    x, at = torch.randn(1, 1, HEADS * SIZE), torch.tensor([3])
    for one in (module, graph):
        one(x, at)
        one.v = one.k
    found = module(x, at)
    assert not written
    wanted = nn.Module.__call__(graph, x, at)
    torch.testing.assert_close(found, wanted)
    # The input is a row of the cache, which is written.
    module, graph = fresh(program), fresh(program)
    module(x, at)
    graph(x, at)
    found = module(module.k[0, :, 3:5].reshape(-1)[:16].reshape(x.shape), at)
    inside = module.k.view(-1)[: HEADS * SIZE].view(x.shape)
    inside_of_graph = graph.k.view(-1)[: HEADS * SIZE].view(x.shape)
    nn.Module.__call__(graph, graph.k[0, :, 3:5].reshape(-1)[:16].reshape(x.shape), at)
    written.clear()
    torch.testing.assert_close(module(inside, at), nn.Module.__call__(graph, inside_of_graph, at))
    assert not written
    torch.testing.assert_close(buffers(module, Decoder()), buffers(graph, Decoder()))


def test_buffers_of_inference_mode_are_refused_as_torch_does(program: Any) -> None:
    module, x, at = fresh(program), torch.randn(1, 1, HEADS * SIZE), torch.tensor([3])
    module(x, at)
    with torch.inference_mode():
        module.k = torch.zeros(1, HEADS, LENGTH, SIZE)
        module(x, at)  # allowed here
    with pytest.raises(RuntimeError, match="inference tensor"):
        module(x + 1, at)


def test_what_is_held_of_a_call_does_not_change_in_the_next(program: Any) -> None:
    module, at = fresh(program), torch.tensor([3])
    held = [module(torch.randn(1, 1, HEADS * SIZE), at) for _ in range(4)]
    kept = [item.clone() for item in held]
    module(torch.randn(1, 1, HEADS * SIZE), at)
    torch.testing.assert_close(held, kept)


def test_caches_of_every_dtype_and_those_that_are_copied(written: list[set[int]]) -> None:
    model = Caches().eval()
    rows, at = torch.randn(2, 3, 4, SIZE), torch.tensor([1, 5, 15, 0])
    module = module_of(compiled(copy.deepcopy(model), rows, at))
    manifest = decode(manifests_of(module)[0])
    names = [spec.name for spec in manifest.signature.inputs]
    pairs = manifest.engines[0].build["updates_in_place"]
    listed = {names[place] for _, place in pairs}
    assert listed >= {f"b_of_{index}" for index in range(len(DTYPES))}
    assert "b_read_before" not in listed
    for shift in range(4):
        rows, places = torch.randn(2, 3, 4, SIZE), (at + shift) % 16
        places = places - 16 if shift == 2 else places  # from the end
        torch.testing.assert_close(module(rows, places), model(rows, places))
        torch.testing.assert_close(buffers(module, model), dict(model.named_buffers()))
    assert len(written) == 3
    assert all(len(call) == len(pairs) for call in written)


def test_positions_outside_of_a_cache_are_refused_and_write_nothing(program: Any) -> None:
    module, x = fresh(program), torch.randn(1, 1, HEADS * SIZE)
    for at in (1, 2):
        module(x, torch.tensor([at]))
    before = {name: item.clone() for name, item in buffers(module, Decoder()).items()}
    for at in (LENGTH, -LENGTH - 1):
        with pytest.raises(portrt.errors.EngineError):
            module(x, torch.tensor([at]))
    torch.testing.assert_close(buffers(module, Decoder()), before)


@pytest.mark.filterwarnings("ignore::portrt.runtime.selection.FallbackWarning")
def test_a_call_in_the_source_between_calls_of_the_engine(program: Any) -> None:
    model, module = Decoder().eval(), fresh(program)
    check_steps(module, model, range(3))
    with portrt.runtime.policy(engines=()):
        check_steps(module, model, range(3, 6))
    check_steps(module, model, range(6, 9))


class Returns(nn.Module):
    """Returns its buffer, which is then the buffer itself in eager and in torch.export."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("cache", torch.zeros(1, 4, 8))

    def forward(self, row: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        self.cache[:, at] = row
        return self.cache


def test_a_buffer_that_is_returned() -> None:
    model, at = Returns().eval(), torch.tensor([1])
    module = module_of(compiled(copy.deepcopy(model), torch.randn(1, 1, 8), at))
    for step in range(3):
        row = torch.randn(1, 1, 8)
        found = module(row, at + step)
        torch.testing.assert_close(found, model(row, at + step))
        assert found.data_ptr() == module.cache.data_ptr()
