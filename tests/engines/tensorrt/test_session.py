"""The hot path against the fake: which calls it makes, and that the right memory is behind them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from fake_tensorrt import plan
from rig import FREE, TOTAL, aligned

from portrt.engines.tensorrt import session as sessions
from portrt.engines.tensorrt.memory import Memory
from portrt.errors import EngineError

BATCHES = [(1, 4), (4, 4), (8, 4)]
X = {"x": ("float32", (8, 4))}
Y = {"y": ("float32", (8, 4))}


def plus_one(**more: Any) -> bytes:
    """y = x + 1 on (1..8, 4), unless the profiles say otherwise."""
    profiles = more.pop("profiles", [BATCHES])
    return plan(
        "plus one",
        {"x": ("FLOAT", (-1, 4), profiles)},
        {"y": ("FLOAT", (["x", 0], 4))},
        **{"memory": [1000] * len(profiles), **more},
    )


def batch(size: int, start: float = 0.0) -> torch.Tensor:
    return aligned(torch.arange(size * 4, dtype=torch.float32).view(size, 4) + start)


def test_numbers_flow(rig: Any) -> None:
    run = rig(plus_one(), X, Y)
    for size in (3, 8, 1, 3):
        x = batch(size)
        (y,) = run(x)
        assert torch.equal(y, x + 1)


def test_addresses_are_set_only_when_they_change(rig: Any) -> None:
    run = rig(plus_one(), X, Y)
    x, other = batch(3), batch(3, 7.0)
    outputs = [run(x)[0] for _ in range(3)]
    assert [args[1] for args in run.calls("set_tensor_address") if args[0] == "x"] == [x.data_ptr()]
    outputs.append(run(other)[0])
    given = [args[1] for args in run.calls("set_tensor_address") if args[0] == "x"]
    assert given == [x.data_ptr(), other.data_ptr()]
    # All outputs are alive: each has an address of its own, given before the run that writes it.
    assert [addresses["y"] for _, addresses, _ in run.library.executed] == [
        y.data_ptr() for y in outputs
    ]
    assert torch.equal(outputs[0], x + 1)
    assert torch.equal(outputs[3], other + 1)


def test_sizes_are_set_and_compared_only_when_they_change(rig: Any) -> None:
    run = rig(plus_one(), X, Y)
    for size in (3, 3, 3, 5, 5, 3):
        run(batch(size))
    assert run.calls("set_input_shape") == [["x", (3, 4)], ["x", (5, 4)], ["x", (3, 4)]]
    assert len(run.calls("get_tensor_shape")) == 3


def test_an_output_of_another_shape_than_the_manifests_is_an_error(rig: Any) -> None:
    run = rig(plus_one(), X, Y)
    with pytest.raises(EngineError, match=r"makes \(3, 4\) of output 'y'") as caught:
        run(batch(3), shapes=[(3, 5)])
    assert caught.value.expected.startswith("(3, 5)")
    assert run.library.executed == []
    with pytest.raises(EngineError):  # its sizes are not taken for known now
        run(batch(3), shapes=[(3, 5)])
    assert torch.equal(run(batch(3))[0], batch(3) + 1)


@pytest.mark.parametrize("old", [False, True], ids=["new plan", "old plan"])
def test_each_run_has_memory_of_torch_of_the_right_size(rig: Any, gpu: Any, old: bool) -> None:
    """Plans of before 10.1 have one size for all profiles, and are told an address alone."""
    profiles = [[(1, 4), (1, 4), (1, 4)], BATCHES]
    made = plus_one(memory=[1000, 5000], profiles=profiles, **({"old": True} if old else {}))
    run = rig(made, X, Y, built=(8, 6) if old else (10, 13))
    gpu.allocated.clear()
    run(batch(3))
    _, _, (address, size) = run.library.executed[-1]
    assert gpu.allocated == [5000]
    assert size == 5000
    assert address
    run(batch(1))
    assert gpu.allocated == [5000, 5000 if old else 1000]
    set_by = "device_memory" if old else "set_device_memory"
    assert run.calls(set_by)
    how = "create_execution_context" + ("_without_device_memory" if old else "")
    assert run.calls(how) == ([[], []] if old else [["USER_MANAGED"]] * 2)


def test_memory_is_set_only_when_it_moves(rig: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "SMALL_BYTES", 0)
    kept = {1000: torch.empty(1000, dtype=torch.uint8)}
    allocate = Memory.empty

    def same(self: Memory, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        made = allocate(self, shape, dtype)
        return kept.get(made.numel(), made) if made.dtype == torch.uint8 else made

    monkeypatch.setattr(Memory, "empty", same)
    run = rig(plus_one(), X, Y)
    for _ in range(3):
        run(batch(3))
    assert run.calls("set_device_memory") == [[kept[1000].data_ptr(), 1000]]
    kept[1000] = torch.empty(1000, dtype=torch.uint8)
    run(batch(3))
    assert run.calls("set_device_memory")[1:] == [[kept[1000].data_ptr(), 1000]]


def test_small_engines_of_a_stream_share_their_memory(rig: Any, gpu: Any) -> None:
    """They run one after the other there; in a graph and on other streams they have others."""
    one, other = rig(plus_one(memory=[1000]), X, Y), rig(plus_one(memory=[2000]), X, Y)
    one.library.executed.clear()
    for stream, capturing in ((1, False), (2, False), (1, True)):
        gpu.stream = stream
        for run in (one, other, one, other):  # the second call of each is the quick one
            gpu.capturing = False
            run(batch(3))
            gpu.capturing = capturing
            run(batch(3))
    places = [memory[0] for _, _, memory in one.library.executed[-24:]]
    quick = [places[8 * part + 4 : 8 * part + 8] for part in range(3)]
    assert len(set(quick[0])) == len(set(quick[1])) == 1
    assert quick[0][0] != quick[1][0]
    assert quick[2][1] not in (quick[0][0], quick[1][0])
    assert gpu.events == []


def test_an_engine_without_activations_takes_no_memory(rig: Any, gpu: Any) -> None:
    run = rig(plus_one(memory=[0]), X, Y)
    gpu.allocated.clear()
    assert torch.equal(run(batch(2))[0], batch(2) + 1)
    assert gpu.allocated == []
    assert torch.equal(run(batch(2))[0], batch(2) + 1)
    assert run.calls("set_device_memory") == []


INPUTS = {
    "unaligned": lambda: aligned(torch.arange(13, dtype=torch.float32))[1:].view(3, 4),
    "transposed": lambda: batch(4).t()[:3],
    "every other": lambda: aligned(torch.arange(24, dtype=torch.float32).view(6, 4))[::2],
    "expanded": lambda: torch.ones(1, 4).expand(3, 4),
    "conjugate of nothing": lambda: batch(3).requires_grad_(),
}


@pytest.mark.parametrize("name", INPUTS)
def test_inputs_of_any_layout(rig: Any, name: str) -> None:
    """Read from where they lie in order and at an address that the engine may be given."""
    run = rig(plus_one(), X, Y)
    x = INPUTS[name]()
    before = x.clone()
    (y,) = run(x)
    assert torch.equal(y, before.detach() + 1)
    assert torch.equal(x, before)
    usable = x.is_contiguous() and x.data_ptr() % 256 == 0
    assert (run.library.executed[0][1]["x"] == x.data_ptr()) is usable


def test_channels_last(rig: Any) -> None:
    shape = (2, 3, 4, 5)
    made = plan(
        "plus one", {"x": ("FLOAT", shape, [[shape] * 3])}, {"y": ("FLOAT", shape)}, memory=[8]
    )
    run = rig(made, {"x": ("float32", shape)}, {"y": ("float32", shape)})
    x = torch.randn(shape).to(memory_format=torch.channels_last)
    (y,) = run(x)
    assert torch.equal(y, x + 1)
    assert y.is_contiguous()


def test_an_input_without_dimensions(rig: Any) -> None:
    made = plan("plus one", {"x": ("FLOAT", (), [[(), (), ()]])}, {"y": ("FLOAT", ())})
    run = rig(made, {"x": ("float32", ())}, {"y": ("float32", ())})
    (y,) = run(aligned(torch.tensor(2.5)))
    assert y.shape == ()
    assert y.item() == 3.5


def test_an_input_without_elements(rig: Any) -> None:
    """Torch has no address for it; the library gets one that is not zero."""
    run = rig(plus_one(profiles=[[(0, 4), (4, 4), (8, 4)]]), X, Y)
    (y,) = run(torch.empty(0, 4))
    assert y.shape == (0, 4)
    assert all(run.library.executed[0][1].values())
    assert torch.equal(run(batch(2))[0], batch(2) + 1)


def test_a_failed_run_is_an_error_with_the_librarys_words(rig: Any) -> None:
    run = rig(plus_one(), X, Y)
    run(batch(3))
    run.library.fails.append("an illegal something at layer 7")
    with pytest.raises(EngineError, match="an illegal something at layer 7") as caught:
        run(batch(3))
    assert "tensorrt 10.13.0.35 failed in block_0" in caught.value.happened
    assert "(3, 4)" in caught.value.happened


def test_after_a_failure_everything_is_set_anew(rig: Any) -> None:
    run = rig(plus_one(), X, Y)
    x = batch(3)
    run(x)
    run.library.fails.append("no")
    with pytest.raises(EngineError):
        run(x)
    run.library.calls.clear()
    assert torch.equal(run(x)[0], x + 1)
    assert run.calls("set_input_shape") == [["x", (3, 4)]]
    assert {args[0] for args in run.calls("set_tensor_address")} == {"x", "y"}
    assert len(run.calls("set_device_memory")) == 1


def test_old_words_are_not_told_again(rig: Any) -> None:
    run = rig(plus_one(), X, Y)
    run.library.fails += ["first reason", "second reason"]
    for words in ("first", "second"):
        with pytest.raises(EngineError) as caught:
            run(batch(3))
        said = [word for word in ("first", "second") if f"{word} reason" in str(caught.value)]
        assert said == [words]


def test_words_about_something_else_are_not_told(rig: Any) -> None:
    run = rig(plus_one(), X, Y)
    run(batch(2))
    run.session.opened.engine.logger.log(run.library.ILogger.Severity.ERROR, "of another engine")
    run.library.fails.append("of this one")
    with pytest.raises(EngineError, match="of this one") as caught:
        run(batch(3))
    assert "of another engine" not in str(caught.value)


def test_sizes_that_the_library_refuses_are_an_error(rig: Any) -> None:
    """The profile's bounds take them; the library does not."""
    run = rig(plus_one(), X, Y)
    run.library.IExecutionContext.set_input_shape = lambda *_: False
    with pytest.raises(EngineError, match="failed in block_0 on inputs of the sizes"):
        run(batch(3))


def test_an_address_that_the_library_refuses_is_an_error(rig: Any) -> None:
    run = rig(plus_one(), X, Y)
    run.library.IExecutionContext.set_tensor_address = lambda *_: False
    with pytest.raises(EngineError, match="failed in block_0"):
        run(batch(3))
    assert run.library.executed == []


@pytest.mark.parametrize("what", ["activations", "outputs"])
def test_too_little_memory_is_an_error_with_numbers(rig: Any, gpu: Any, what: str) -> None:
    wide = [(1, 4), (4, 4), (2 << 20, 4)]
    run = rig(plus_one(memory=[5 << 20], profiles=[wide]), X, Y)
    gpu.refuse = (5 << 20) if what == "activations" else (16 << 20)
    x = batch(3) if what == "activations" else torch.zeros(1 << 20, 4)
    with pytest.raises(EngineError, match=r"its activations take 5\.0 MiB") as caught:
        run(x)
    assert f"{FREE >> 20} of {TOTAL >> 20} MiB are free" in caught.value.happened
    assert isinstance(caught.value.__cause__, torch.OutOfMemoryError)
    gpu.refuse = None
    assert torch.equal(run(x)[0], x + 1)
    assert len(run.calls("create_execution_context")) == 1


def test_the_profile_is_chosen_by_shape(rig: Any) -> None:
    small, large = [(1, 4), (1, 4), (2, 4)], [(2, 4), (4, 4), (8, 4)]
    run = rig(plus_one(profiles=[small, large]), X, Y)
    for size in (8, 2, 1, 3, 1):
        assert torch.equal(run(batch(size))[0], batch(size) + 1)
    assert [context.profile for context in run.contexts()] == [1, 0, 0, 1, 0]
    # A context of its own for each: changing the profile of one would stall.
    assert run.calls("set_optimization_profile_async") == [[1, 0]]
    assert len(set(run.contexts())) == 2


def test_sizes_outside_all_profiles_are_an_error_with_the_ranges(rig: Any) -> None:
    small, large = [(1, 4), (1, 4), (2, 4)], [(4, 4), (4, 4), (8, 4)]
    run = rig(plus_one(profiles=[small, large]), X, Y)
    with pytest.raises(EngineError, match=r"no profile .* takes x \[3, 4\]") as caught:
        run(batch(3))
    assert "profile 0: x [1, 4] to [2, 4]" in caught.value.expected
    assert "profile 1: x [4, 4] to [8, 4]" in caught.value.expected
    assert run.library.executed == []


def test_bindings_are_mapped_by_the_names_of_the_build(rig: Any) -> None:
    made = plan(
        "sum",
        {"in_b": ("FLOAT", (2,), [[(2,)] * 3]), "in_a": ("FLOAT", (1,), [[(1,)] * 3])},
        {"out": ("FLOAT", (2,))},
    )
    run = rig(
        made,
        {"a": ("float32", (1,)), "b": ("float32", (2,))},
        {"y": ("float32", (2,))},
        bindings={"inputs": ["in_a", "in_b"], "outputs": ["out"]},
    )
    (y,) = run(torch.tensor([10.0]), torch.tensor([1.0, 2.0]), shapes=[(2,)])
    assert y.tolist() == [11.0, 12.0]


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ({"z": ("float32", (8, 4))}, Y),
        (X, {"z": ("float32", (8, 4))}),
        ({"x": ("float16", (8, 4))}, Y),
        ({"x": ("int64", (8, 4))}, Y),
        (X, {**Y, "more": ("float32", (1,))}),
    ],
    ids=["input", "output", "dtype", "int64", "another output"],
)
def test_an_engine_with_other_bindings_than_the_block_is_refused(
    rig: Any, inputs: Any, outputs: Any
) -> None:
    with pytest.raises(EngineError, match=r"takes \[\('x', 'float32'\)\] and gives"):
        rig(plus_one(), inputs, outputs)


def test_an_engine_may_lack_an_input_that_the_block_does_not_use(rig: Any) -> None:
    run = rig(plus_one(), {"unused": ("int64", (1,)), **X}, Y)
    (y,) = run(torch.zeros(1, dtype=torch.int64), batch(3), shapes=[(3, 4)])
    assert torch.equal(y, batch(3) + 1)


@pytest.mark.parametrize("how", [{"vectorized": {"x": 1}}, {"kind": "INT4"}])
def test_a_layout_that_torch_does_not_have_is_refused(rig: Any, how: Any) -> None:
    kind = how.pop("kind", "FLOAT")
    made = plan("plus one", {"x": (kind, (4,), [[(4,)] * 3])}, {"y": ("FLOAT", (4,))}, **how)
    with pytest.raises(EngineError, match=r"'x' is .* in a layout that torch does not have"):
        rig(made, X, Y)
