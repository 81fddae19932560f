"""Types and sizes of the two sides: int64 and int32, shape tensors, sizes that only a run tells."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import pytest
import torch
from fake_tensorrt import plan
from rig import aligned

from portrt.engines.tensorrt import int64_narrowing
from portrt.engines.tensorrt.engine import OpenedEngine
from portrt.errors import EngineError

IDS = [(1,), (4,), (8,)]


@pytest.fixture(params=["torch's operators", "a kernel"], autouse=True)
def narrowed_by(request: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the kernel only its arguments are tried: what stands for it reads them as it does."""

    def launch(blocks: tuple[int, int], threads: int, stream: int, arguments: Any) -> None:
        *places, overflow = arguments
        assert blocks[0] * threads > 0
        for number in range(blocks[1]):
            wide, narrow, count = places[3 * number : 3 * number + 3]
            for index in range(count):
                value = ctypes.c_longlong.from_address(wide + 8 * index).value
                small = ctypes.c_int.from_address(narrow + 4 * index)
                small.value = value
                if small.value != value:
                    ctypes.c_int.from_address(overflow).value = 1

    made = launch if request.param == "a kernel" else None
    monkeypatch.setattr(int64_narrowing, "cuda_kernel", lambda *_: made)


QUANTIZED = plan("plus one", {"x": ("INT32", (-1,), [IDS])}, {"y": ("INT32", (["x", 0],))})
WIDE_X = {"x": ("int64", (8,))}
WIDE_Y = {"y": ("int64", (8,))}


def test_int64_goes_to_an_int32_engine_and_back(rig: Any) -> None:
    run = rig(QUANTIZED, WIDE_X, WIDE_Y)
    x = torch.tensor([1, -5, 2**31 - 2])
    (y,) = run(x)
    assert y.dtype == torch.int64
    assert torch.equal(y, x + 1)
    (y,) = run(torch.arange(16)[::4])
    assert y.tolist() == [1, 5, 9, 13]


def test_int32_of_both_sides_is_not_converted(rig: Any) -> None:
    run = rig(QUANTIZED, {"x": ("int32", (8,))}, {"y": ("int32", (8,))})
    x = aligned(torch.tensor([1, 2], dtype=torch.int32))
    (y,) = run(x)
    assert y.dtype == torch.int32
    assert run.library.executed[0][1]["x"] == x.data_ptr()


def test_an_int64_engine_gets_int64(rig: Any) -> None:
    made = plan("plus one", {"x": ("INT64", (-1,), [IDS])}, {"y": ("INT64", (["x", 0],))})
    run = rig(made, WIDE_X, WIDE_Y)
    x = aligned(torch.tensor([2**40, -(2**50)]))
    assert torch.equal(run(x)[0], x + 1)
    assert run.library.executed[0][1]["x"] == x.data_ptr()


@pytest.mark.parametrize("number", [2**31, -(2**31) - 1, 2**32, 2**62])
def test_a_number_that_int32_does_not_hold_is_an_error_at_the_next_call(
    rig: Any, number: int
) -> None:
    run = rig(QUANTIZED, WIDE_X, WIDE_Y)
    run(torch.tensor([1, number]))
    with pytest.raises(EngineError, match=r"does not hold, in 'x': its outputs are wrong"):
        run(torch.tensor([1, 2]))
    assert run(torch.tensor([1, 2]))[0].tolist() == [2, 3]  # it is said once


def test_a_lost_number_is_not_forgotten_over_a_good_one(rig: Any) -> None:
    """The second input is converted after the first, in the same call."""
    made = plan(
        "sum",
        {"a": ("INT32", (-1,), [IDS]), "b": ("INT32", (-1,), [IDS])},
        {"y": ("INT32", (["a", 0],))},
    )
    run = rig(made, {"a": ("int64", (8,)), "b": ("int64", (8,))}, WIDE_Y)
    run(torch.tensor([2**40]), torch.tensor([1]))
    with pytest.raises(EngineError, match="in 'a', 'b'"):
        run(torch.tensor([1]), torch.tensor([1]))


def test_more_inputs_than_one_launch_takes(rig: Any) -> None:
    names = "abcdefghi"
    made = plan(
        "sum", {name: ("INT32", (-1,), [IDS]) for name in names}, {"y": ("INT32", (["a", 0],))}
    )
    run = rig(made, dict.fromkeys(names, ("int64", (8,))), WIDE_Y)
    given = [torch.tensor([1, -2, 3]) * 10**place for place in range(9)]
    (y,) = run(*given)
    assert y.tolist() == [111111111, -222222222, 333333333]
    run(*given[:-1], torch.tensor([2**31, 0, 0]))
    with pytest.raises(EngineError):
        run(*given)


def test_a_lost_number_is_told_whatever_the_stream(rig: Any, gpu: Any) -> None:
    run = rig(QUANTIZED, WIDE_X, WIDE_Y)
    gpu.stream = 1
    run(torch.tensor([2**40]))
    gpu.stream = 2
    with pytest.raises(EngineError):
        run(torch.tensor([1]))
    assert run(torch.tensor([1]))[0].tolist() == [2]
    run(torch.tensor([2**41]))
    with pytest.raises(EngineError):
        run(torch.tensor([1]))


def test_a_lost_number_of_a_graph_is_not_forgotten(rig: Any, gpu: Any) -> None:
    run = rig(QUANTIZED, WIDE_X, WIDE_Y)
    gpu.capturing = True
    assert run(torch.tensor([2**40]))[0].shape == (1,)
    with pytest.raises(EngineError, match="its outputs are wrong"):
        run(torch.tensor([1]))
    narrower = run.session.narrow
    narrower([torch.tensor([2**40])], 0)
    narrower([torch.tensor([1])], 0)
    assert narrower.overflowed
    assert not narrower.overflowed


def test_no_ids_at_all(rig: Any) -> None:
    least = [(0,), (4,), (8,)]
    made = plan("plus one", {"x": ("INT32", (-1,), [least])}, {"y": ("INT32", (["x", 0],))})
    (y,) = rig(made, WIDE_X, WIDE_Y)(torch.empty(0, dtype=torch.int64))
    assert y.shape == (0,)
    assert y.dtype == torch.int64


# y is x[0], n times m; n and m are on the host, and their numbers choose the profile.
FEW, MANY = [(1, 1), (2, 2), (4, 4)], [(5, 1), (8, 8), (16, 16)]
FILL = plan(
    "fill",
    {"x": ("FLOAT", (1,), [[(1,)] * 3] * 2), "n": ("INT32", (2,), [FEW, MANY])},
    {"y": ("FLOAT", (["value", "n", 0], ["value", "n", 1]))},
    host=["n"],
    memory=[10, 20],
)
FILL_X = {"x": ("float32", (1,)), "n": ("int64", (2,))}
FILL_Y = {"y": ("float32", (9, 9))}


def fill(run: Any, x: float, *sizes: int) -> torch.Tensor:
    found: torch.Tensor = run(torch.tensor([x]), torch.tensor(sizes), shapes=[sizes])[0]
    return found


def test_the_numbers_of_a_shape_tensor_decide(rig: Any) -> None:
    run = rig(FILL, FILL_X, FILL_Y)
    for x, sizes in enumerate([(2, 3), (3, 2), (2, 3), (7, 1), (4, 4)]):
        y = fill(run, float(x), *sizes)
        assert torch.equal(y, torch.full(sizes, float(x)))
    assert [context.profile for context in run.contexts()] == [0, 0, 0, 1, 0]


@pytest.mark.parametrize("built", [(8, 6), (10, 13)])
def test_sizes_that_the_numbers_of_a_shape_tensor_tell_need_no_allocator(
    rig: Any, built: tuple[int, ...]
) -> None:
    """The caller does not know them: they are -1. An engine of 8.6 has no allocator under 10."""
    made = FILL.replace(b'"host"', b'"old": true, "host"') if built < (10, 1) else FILL
    run = rig(made, FILL_X, FILL_Y, built=built)
    for x, sizes in enumerate([(2, 3), (3, 2), (2, 3), (7, 1)]):
        (y,) = run(torch.tensor([float(x)]), torch.tensor(sizes), shapes=[(-1, -1)])
        assert torch.equal(y, torch.full(sizes, float(x)))
    with pytest.raises(EngineError, match=r"makes \(2, 4\) of output 'y'"):
        run(torch.tensor([1.0]), torch.tensor([2, 4]), shapes=[(-1, 3)])
    assert not run.calls("set_output_allocator")


def test_a_shape_tensor_is_read_anew_where_it_lies(rig: Any) -> None:
    """Same tensor, same address, other numbers."""
    run = rig(FILL.replace(b"INT32", b"INT64"), {**FILL_X, "n": ("int64", (2,))}, FILL_Y)
    sizes = torch.tensor([2, 3])
    assert run(torch.tensor([1.0]), sizes, shapes=[(2, 3)])[0].shape == (2, 3)
    sizes[0] = 4
    assert run(torch.tensor([1.0]), sizes, shapes=[(4, 3)])[0].shape == (4, 3)


def test_equal_numbers_are_told_once(rig: Any) -> None:
    run = rig(FILL, FILL_X, FILL_Y)
    for _ in range(3):
        fill(run, 1.0, 2, 2)
    assert len(run.calls("set_input_shape")) == 2


def test_numbers_outside_all_profiles_are_an_error_with_both(rig: Any) -> None:
    run = rig(FILL, FILL_X, FILL_Y)
    with pytest.raises(EngineError, match=r"takes .*n \[3, 17\]") as caught:
        fill(run, 1.0, 3, 17)
    assert "n [1, 1] to [4, 4]" in caught.value.expected
    assert "n [5, 1] to [16, 16]" in caught.value.expected


class Engine86:
    """An engine as 8.6 has it: without the method that newer releases have."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        if name == "get_tensor_profile_values":
            raise AttributeError(name)
        return getattr(self._engine, name)


def test_bounds_that_8_6_does_not_tell_are_not_asked_for(
    rig: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It tells the first of the two numbers."""
    taken = OpenedEngine._deserialized
    monkeypatch.setattr(OpenedEngine, "_deserialized", lambda self: Engine86(taken(self)))
    run = rig(FILL.replace(b'"host"', b'"old": true, "host"'), FILL_X, FILL_Y, built=(8, 6))
    for sizes in [(2, 3), (7, 1), (3, 17)]:
        assert torch.equal(fill(run, 1.0, *sizes), torch.full(sizes, 1.0))
    assert [context.profile for context in run.contexts()] == [0, 1, 0]
    with pytest.raises(EngineError, match=r"takes .*n \[17, 1\]"):
        fill(run, 1.0, 17, 1)


def test_where_no_bounds_of_numbers_are_told_all_are_taken(
    rig: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen: 10.16 tells none of an engine of 8.6."""
    engine = sys.modules["fake_tensorrt"].ICudaEngine
    monkeypatch.setattr(engine, "get_tensor_profile_values", lambda *_: [])
    run = rig(FILL, FILL_X, FILL_Y)
    assert torch.equal(fill(run, 1.0, 17, 1), torch.ones(17, 1))


def test_a_shape_tensor_that_int32_does_not_hold_is_an_error_now(rig: Any) -> None:
    run = rig(FILL, FILL_X, FILL_Y)
    with pytest.raises(EngineError, match="does not hold, in 'n'"):
        fill(run, 1.0, 2**32 + 2, 2)
    assert run.library.executed == []


def test_each_shape_tensor_has_a_type_of_its_own(rig: Any) -> None:
    one = [(1,), (2,), (4,)]
    made = plan(
        "fill",
        {
            "x": ("FLOAT", (1,), [[(1,)] * 3]),
            "n": ("INT32", (1,), [one]),
            "m": ("INT64", (1,), [[(0,), (0,), (2**40,)]]),
        },
        {"y": ("FLOAT", (["value", "n", 0],))},
        host=["n", "m"],
    )
    inputs = {"x": ("float32", (1,)), "n": ("int64", (1,)), "m": ("int64", (1,))}
    run = rig(made, inputs, {"y": ("float32", (4,))})
    (y,) = run(torch.tensor([2.0]), torch.tensor([3]), torch.tensor([2**40]), shapes=[(3,)])
    assert y.tolist() == [2.0] * 3
    assert next(iter(run.library.executed[0][0].values.values())) == [3]


def test_an_output_on_the_host_comes_to_the_device(rig: Any) -> None:
    made = plan(
        "plus one", {"x": ("INT32", (2,), [[(2,)] * 3])}, {"y": ("INT32", (2,))}, host=["y"]
    )
    run = rig(made, {"x": ("int32", (2,))}, {"y": ("int64", (2,))})
    (y,) = run(torch.tensor([1, 2], dtype=torch.int32))
    assert y.tolist() == [2, 3]
    assert y.dtype == torch.int64


NONZERO = plan("nonzero", {"x": ("FLOAT", (-1,), [IDS])}, {"y": ("INT64", (-1, 1))}, memory=[10])
PLUS_ONE = plan(
    "plus one", {"x": ("FLOAT", (-1,), [IDS])}, {"y": ("FLOAT", (["x", 0],))}, memory=[10]
)
MASK_X, MASK_Y = {"x": ("float32", (8,))}, {"y": ("int64", (8, 1))}


@pytest.mark.parametrize("version", ["10.13.0.35", "8.6.0"])
def test_a_size_that_only_a_run_tells(rig: Any, install: Any, version: str) -> None:
    """8.6 asks for too little memory, and forgets sizes when it is asked how much there may be."""
    library = install(version=version)
    old = version.startswith("8")
    made = NONZERO.replace(b'"memory"', b'"old": true, "memory"') if old else NONZERO
    run = rig(made, MASK_X, MASK_Y, built=(8, 6) if old else (10, 13))
    numbers = ([0.0, 1.0, 2.0], [0.0, 0.0, 1.0], [0.0] * 3, [3.0] * 4, [1.0] * 8, [0.0, 1.0])
    inputs = [torch.tensor(some) for some in numbers]
    kept = [run(x, shapes=[(-1, 1)])[0] for x in inputs]
    for x, y in zip(inputs, kept, strict=True):  # later runs do not write to earlier outputs
        assert torch.equal(y, x.nonzero())
    calls = [name for _, name, *_ in library.calls]
    assert calls.count("set_output_allocator") == 1
    assert calls.count("get_max_output_size") == old


def test_8_6_is_asked_once_where_the_sizes_of_inputs_tell_that_of_an_output(
    rig: Any, install: Any
) -> None:
    """The caller does not know it, the context does; a run of the largest sizes comes second."""
    library = install(version="8.6.0")
    made = PLUS_ONE.replace(b'"memory"', b'"old": true, "memory"')
    run = rig(made, MASK_X, {"y": ("float32", (8,))}, built=(8, 6))
    for x in (torch.ones(3), torch.ones(8), torch.zeros(2)):
        assert torch.equal(run(x, shapes=[(-1,)])[0], x + 1)
    assert [name for _, name, *_ in library.calls].count("get_max_output_size") == 1


def test_an_output_that_may_be_of_any_size_has_no_memory_under_8_6(
    rig: Any, install: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(version="8.6.0")
    context = sys.modules["fake_tensorrt"].IExecutionContext
    monkeypatch.setattr(context, "get_max_output_size", lambda *_: -1)
    made = NONZERO.replace(b'"memory"', b'"old": true, "memory"')
    run = rig(made, MASK_X, MASK_Y, built=(8, 6))
    with pytest.raises(EngineError, match="reports no upper bound of it"):
        run(torch.ones(3), shapes=[(-1, 1)])


@pytest.mark.parametrize("shape", [(-1, 2), (-1,), (1, 1)])
def test_an_unknown_size_beside_another_known_one_is_an_error(rig: Any, shape: Any) -> None:
    run = rig(NONZERO, MASK_X, MASK_Y)
    with pytest.raises(EngineError, match=r"makes \(2, 1\) of output 'y'"):
        run(torch.tensor([1.0, 1.0]), shapes=[shape])


def test_no_memory_for_an_output_of_unknown_size_is_an_error(rig: Any, gpu: Any) -> None:
    run = rig(NONZERO, MASK_X, MASK_Y)
    run(torch.tensor([1.0]), shapes=[(-1, 1)])
    gpu.refuse = 24
    with pytest.raises(EngineError, match="no memory for y"):
        run(torch.ones(3), shapes=[(-1, 1)])
