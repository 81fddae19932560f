"""Execution contexts: one call at a time, by stream and profile, not too many, none in a graph."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from fake_tensorrt import plan
from rig import aligned

from portrt.engines.cuda import capture_guard
from portrt.engines.tensorrt import contexts
from portrt.errors import EngineError

X = {"x": ("float32", (8, 4))}
Y = {"y": ("float32", (8, 4))}
SMALL, LARGE = [(1, 4), (1, 4), (2, 4)], [(3, 4), (4, 4), (8, 4)]
PLAN = plan(
    "plus one",
    {"x": ("FLOAT", (-1, 4), [SMALL, LARGE])},
    {"y": ("FLOAT", (["x", 0], 4))},
    memory=[100, 100],
)


@pytest.fixture
def run(rig: Any) -> Any:
    return rig(PLAN, X, Y)


def batch(size: int, start: float = 0.0) -> torch.Tensor:
    return aligned(torch.arange(size * 4, dtype=torch.float32).view(size, 4) + start)


def test_each_stream_and_profile_has_a_context(run: Any, gpu: Any) -> None:
    for stream, size in ((11, 1), (22, 1), (11, 3), (22, 3), (11, 1), (22, 1), (11, 3), (22, 3)):
        gpu.stream = stream
        assert torch.equal(run(batch(size))[0], batch(size) + 1)
    used = run.contexts()
    assert used[:4] == used[4:]
    assert len(set(used)) == 4
    assert gpu.events == []  # none of them waits
    assert [stream for (stream,) in run.calls("execute_async_v3")] == [11, 22] * 4


def test_a_profile_is_set_on_the_stream_of_the_call(run: Any, gpu: Any) -> None:
    gpu.stream = 33
    run(batch(3))
    assert run.calls("set_optimization_profile_async") == [[1, 33]]


def meeting(count: int) -> Callable[[Any], Callable[..., bool]]:
    """Makes a run wait until so many are under way."""
    barrier = threading.Barrier(count, timeout=600)

    def wrap(execute: Any) -> Callable[..., bool]:
        def wait_and_execute(self: Any, stream: int) -> bool:
            barrier.wait()
            return bool(execute(self, stream))

        return wait_and_execute

    return wrap


def test_calls_at_once_on_one_stream_have_a_context_each(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All threads use the default stream. Each run begins when all four are there."""
    kind = run.library.IExecutionContext
    monkeypatch.setattr(kind, "execute_async_v3", meeting(4)(kind.execute_async_v3))
    given = [batch(2, 10.0 * index) for index in range(4)]
    for _ in range(5):
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(lambda x: run(x)[0], given))
        assert all(torch.equal(y, x + 1) for x, y in zip(given, results, strict=True))
    assert run.library.shared == []
    assert len(set(run.contexts())) == 4
    assert len(run.calls("create_execution_context")) == 4


def test_many_threads_and_sizes_give_right_numbers(
    run: Any, gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two threads a stream, each of whose runs meets one of the other; sizes of both profiles."""
    kind = run.library.IExecutionContext
    execute = kind._execute
    barriers = [threading.Barrier(2, timeout=600) for _ in range(4)]

    def meet_and_execute(self: Any, stream: int) -> bool:
        barriers[stream].wait()
        return bool(execute(self, stream))

    def work(number: int) -> list[bool]:
        gpu.stream = number // 2
        given = [batch(1 + (number + step) % 8, 100.0 * number + step) for step in range(40)]
        try:
            return [torch.equal(run(x)[0], x + 1) for x in given]
        except BaseException:
            barriers[gpu.stream].abort()  # the other one need not wait for it
            raise

    monkeypatch.setattr(kind, "_execute", meet_and_execute)

    with ThreadPoolExecutor(8) as pool:
        assert all(all(right) for right in pool.map(work, range(8)))
    assert run.library.shared == []
    # Two for each profile of each stream.
    assert len(run.calls("create_execution_context")) == 16


def test_contexts_are_bounded_and_taken_over_when_the_gpu_is_done(
    run: Any, gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a context does on one stream is in order; on another one it has to be waited for."""
    monkeypatch.setattr(contexts, "_MAX_CONTEXTS", 3)
    executed = run.library.executed
    for stream in range(3):
        gpu.stream = stream
        run(batch(1))
    assert gpu.events == []
    for stream in range(3, 8):
        gpu.stream = stream
        before = len(gpu.events)
        assert torch.equal(run(batch(2))[0], batch(2) + 1)
        assert len(gpu.events) == before + 1
    assert len({context for context, _, _ in executed}) == 3
    gpu.stream = 7
    run(batch(2))
    assert len(gpu.events) == 5  # it has one now


def test_nobody_waits_for_a_gpu_on_which_a_graph_is_captured(
    run: Any, gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which would end the capture, and fail."""
    monkeypatch.setattr(contexts, "_MAX_CONTEXTS", 1)
    run(batch(1))
    asked = threading.Event()
    lock = capture_guard.alone_on(run.session.device)

    class Watched:
        """The lock, which tells that somebody wants it."""

        def __enter__(self) -> None:
            asked.set()
            lock.acquire()

        def __exit__(self, *_: object) -> None:
            lock.release()

    monkeypatch.setitem(capture_guard._locks, run.session.device, Watched())

    def on_another_stream() -> bool:
        gpu.stream = 1
        return torch.equal(run(batch(1))[0], batch(1) + 1)

    with ThreadPoolExecutor(1) as pool:
        with lock:
            answer = pool.submit(on_another_stream)
            answer.add_done_callback(lambda _: asked.set())
            assert asked.wait(600)
            assert not answer.done()
            assert gpu.events == []
        assert answer.result(timeout=600)
    assert gpu.events == ["synchronize"]


def test_a_context_is_nobody_elses_while_it_is_waited_for(
    run: Any, gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its old stream calls during the wait: with the same context, what it does would not be waited
    for."""
    monkeypatch.setattr(contexts, "_MAX_CONTEXTS", 1)
    gpu.stream = 1
    run(batch(1))
    (first,) = run.contexts()
    taken = []

    def wait(device: Any) -> None:
        taken.extend(run.session._idle[1, 0])

    monkeypatch.setattr(torch.cuda, "synchronize", wait)
    gpu.stream = 2
    run(batch(1))
    assert run.contexts() == [first, first]
    assert taken == []


def test_a_context_of_another_profile_is_not_taken_over(
    run: Any, gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contexts, "_MAX_CONTEXTS", 1)
    run(batch(1))
    gpu.stream = 2
    assert torch.equal(run(batch(4))[0], batch(4) + 1)
    assert [context.profile for context in run.contexts()] == [0, 1]


@pytest.mark.parametrize("version", ["8.6.0", "10.13.0.35"])
def test_an_old_engine_of_which_a_profile_has_one_context_is_copied(
    rig: Any, gpu: Any, trt: Any, version: str
) -> None:
    """As TensorRT 8.6 builds them. The copy is a second engine of the same plan."""
    trt.__version__ = version
    made = PLAN.replace(b'"op"', b'"one_each": true, "old": true, "op"')
    run = rig(made, X, Y, built=(8, 6))
    for stream, size in ((1, 1), (2, 1), (3, 1), (1, 4), (2, 4), (1, 1)):
        gpu.stream = stream
        assert torch.equal(run(batch(size))[0], batch(size) + 1)
    used = run.contexts()
    assert len(set(used)) == 5
    assert used[5] is used[0]
    assert [context.profile for context in used] == [0, 0, 0, 1, 1, 0]
    busy = [(context.engine, context.profile) for context in used[:5]]
    assert len(set(busy)) == 5


def test_an_old_engine_whose_contexts_share_profiles_is_not_copied(
    rig: Any, gpu: Any, trt: Any
) -> None:
    """As portrt has TensorRT 8.6 build them."""
    trt.__version__ = "8.6.0"
    run = rig(PLAN.replace(b'"op"', b'"old": true, "op"'), X, Y, built=(8, 6))
    for stream, size in ((1, 1), (2, 1), (3, 4), (4, 4), (5, 1)):
        gpu.stream = stream
        assert torch.equal(run(batch(size))[0], batch(size) + 1)
    assert len(set(run.contexts())) == 5
    assert len({context.engine for context in run.contexts()}) == 1
    # Two more, to find out once.
    assert len(run.calls("create_execution_context_without_device_memory")) == 7


def test_too_little_memory_to_find_out_whether_profiles_are_shared(
    rig: Any, gpu: Any, trt: Any
) -> None:
    trt.__version__ = "8.6.0"
    run = rig(PLAN.replace(b'"op"', b'"old": true, "op"'), X, Y, built=(8, 6))
    run(batch(1))
    gpu.stream = 1
    for left in (0, 1):
        run.library.contexts_left = left
        with pytest.raises(EngineError, match="out of memory for another context"):
            run(batch(1))
    run.library.contexts_left = 3
    assert torch.equal(run(batch(1))[0], batch(1) + 1)
    assert len({context.engine for context in run.contexts()}) == 1


def test_failed_contexts_do_not_count(run: Any, gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contexts, "_MAX_CONTEXTS", 2)
    run.library.contexts_left = 0
    for stream in range(5):
        gpu.stream = stream
        with pytest.raises(EngineError, match="out of memory for another context"):
            run(batch(1))
    run.library.contexts_left = 2
    for stream in range(2):
        gpu.stream = stream
        run(batch(1))
    assert gpu.events == []


def test_a_captured_context_is_never_used_again(run: Any, gpu: Any) -> None:
    """A graph of the caller's runs it whenever it likes."""
    x = batch(1)
    run(x)
    gpu.capturing, gpu.stream = True, 5
    run(x)
    gpu.capturing = False
    for stream in (0, 5, 0, 5):
        gpu.stream = stream
        run(x)
    warm, captured, *later = run.contexts()
    assert captured is warm  # which had run with these sizes, and so allocates nothing
    assert captured not in later


def test_a_capture_takes_the_context_that_knows_the_sizes(run: Any, gpu: Any) -> None:
    """Also where another one is idle on the stream itself."""
    for stream, size in ((3, 1), (1, 2), (5, 1)):
        gpu.stream = stream
        run(batch(size))
    gpu.capturing = True
    run.library.calls.clear()
    run(batch(2))
    assert run.contexts()[3] is run.contexts()[1]
    assert run.calls("set_input_shape") == []
    run(batch(2))  # the second one in this graph has to be told
    assert run.contexts()[4] in (run.contexts()[0], run.contexts()[2])
    assert gpu.events == []  # to wait would end the capture


def test_a_captured_context_stays_with_the_session(run: Any, gpu: Any) -> None:
    gpu.capturing = True
    run(batch(1))
    (context,) = run.contexts()
    run.library.executed.clear()
    run.library.calls.clear()
    assert [slot.context for slot in run.session._captured] == [context]


def test_a_failed_capture_gives_nothing_back(run: Any, gpu: Any) -> None:
    run(batch(1))
    gpu.capturing = True
    run.library.fails.append("it would allocate")
    with pytest.raises(EngineError, match="sizes that ran before"):
        run(batch(1))
    gpu.capturing = False
    run(batch(1))
    assert run.contexts()[2] is not run.contexts()[1]
