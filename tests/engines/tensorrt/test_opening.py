"""Libraries, runtimes and engines: made once, shared, kept as long as they must be."""

from __future__ import annotations

import gc
import logging
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from fake_tensorrt import plan
from rig import FREE, TOTAL, manifest_of, spec_of

from portrt.engines.tensorrt.libraries import library
from portrt.engines.tensorrt.open import open_session
from portrt.errors import EngineError

SHAPE = (2,)
INPUTS, OUTPUTS = {"x": ("float32", SHAPE)}, {"y": ("float32", SHAPE)}
MANIFEST = manifest_of(INPUTS, OUTPUTS)


def made(**more: Any) -> bytes:
    return plan("plus one", {"x": ("FLOAT", SHAPE, [[SHAPE] * 3])}, {"y": ("FLOAT", SHAPE)}, **more)


def opened(data: bytes, name: str = "tensorrt", built: str = "10.13.0.35", **more: Any) -> Any:
    blob = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    return open_session(
        spec_of(data), MANIFEST, blob, library=name, built=built, device=torch.device("cpu"), **more
    )


def run(session: Any, value: float) -> list[float]:
    found: list[float] = session.run([torch.full(SHAPE, value)], [SHAPE])[0].tolist()
    return found


def methods(trt: Any, name: str) -> int:
    return sum(method == name for _, method, *_ in trt.calls)


def test_the_bindings_of_the_real_library_have_what_the_fake_has() -> None:
    """With arguments of the same names, where pybind tells them. What only TensorRT has is left out
    (TensorRT-RTX never had plans without sizes for profiles)."""
    real = pytest.importorskip("tensorrt_rtx", reason="the bindings are not installed")
    fake = sys.modules["fake_tensorrt"].fake_library()
    older = set(sys.modules["fake_tensorrt"].OLDER)
    assert not any(hasattr(real.ICudaEngine, method) for method in older)
    own = {"note", "use", "entry", "library", "profile", "fails"}
    for name in ("Runtime", "ICudaEngine", "IExecutionContext", "Refitter"):
        theirs = getattr(real, name)
        for method in set(vars(getattr(sys.modules["fake_tensorrt"], name))) - older - own:
            if method.startswith("_"):
                continue
            doc = getattr(theirs, method).__doc__ or ""
            ours = getattr(getattr(fake, name), method)
            if callable(ours) and doc.startswith(f"{method}(self"):
                wanted = [part.partition(":")[0] for part in doc.partition(")")[0].split(", ")[1:]]
                names = ours.__code__.co_varnames[1 : ours.__code__.co_argcount]
                assert list(names) == wanted, method
    for name in ("TensorIOMode", "TensorLocation", "ExecutionContextAllocationStrategy"):
        assert set(getattr(fake, name).__members__) <= set(getattr(real, name).__members__)
    assert set(fake.DataType.__members__) <= set(real.DataType.__members__)
    assert set(fake.ILogger.Severity.__members__) == set(real.ILogger.Severity.__members__)


def test_an_engine_is_opened_once_and_shared(gpu: Any, trt: Any) -> None:
    one, other = opened(made()), opened(made())
    assert methods(trt, "deserialize_cuda_engine") == 1
    assert methods(trt, "Runtime") == 1
    assert (run(one, 1.0), run(other, 2.0)) == ([2.0] * 2, [3.0] * 2)
    assert one.opened is other.opened


def test_an_engine_is_closed_with_the_last_session(gpu: Any, trt: Any) -> None:
    one, other = opened(made()), opened(made())
    run(one, 1.0)
    trt.calls.clear()
    trt.executed.clear()
    engine = weakref.ref(one.opened.engine)
    del one
    gc.collect()
    assert run(other, 1.0) == [2.0] * 2
    del other
    trt.calls.clear()
    trt.executed.clear()
    gc.collect()
    assert engine() is None
    opened(made())
    assert methods(trt, "deserialize_cuda_engine") == 1


def test_sessions_of_two_runtimes_share_no_engine(gpu: Any, trt: Any) -> None:
    """One of them may bring code, the other may not."""
    one, other = opened(made()), opened(made(), host_code=True)
    assert one.opened is not other.opened


def test_threads_that_open_at_once_have_one_library_and_one_engine(gpu: Any, trt: Any) -> None:
    start = threading.Barrier(8, timeout=600)

    def open_one(_: int) -> Any:
        start.wait()
        return opened(made())

    with ThreadPoolExecutor(8) as pool:
        sessions = list(pool.map(open_one, range(8)))
    assert len({id(session.opened) for session in sessions}) == 1
    assert len({id(session.opened.lib) for session in sessions}) == 1
    assert methods(trt, "Runtime") == 1


def test_logger_and_runtimes_are_kept_for_ever(gpu: Any, trt: Any) -> None:
    """What was made from them crashes the end of the process without them."""
    lib = library("tensorrt")
    lean = lib.runtime(lean="lib.so.8")
    first = next(it for it, method, *_ in trt.calls if method == "Runtime")
    kept = [weakref.ref(thing) for thing in (first, lean, first.logger)]
    trt.calls.clear()
    lib._runtimes.clear()
    vars(lib).clear()
    del lib, lean, first
    gc.collect()
    assert [ref() is not None for ref in kept] == [True, True, True]


@pytest.mark.parametrize("host_code", [False, True])
def test_host_code_is_allowed_only_where_it_is_said(gpu: Any, trt: Any, host_code: bool) -> None:
    """Of both runtimes, where a lean one is loaded."""
    opened(made(), host_code=host_code, lean_runtime="lib.so.8")
    (call,) = [args for _, method, *args in trt.calls if method == "load_runtime"]
    assert call == ["lib.so.8", host_code]
    (by,) = [it for it, method, *_ in trt.calls if method == "deserialize_cuda_engine"]
    assert by.engine_host_code_allowed is host_code
    assert by.lean == "lib.so.8"


def test_an_engine_that_needs_more_than_it_gets_is_refused(gpu: Any, trt: Any) -> None:
    with pytest.raises(EngineError, match="host code is not allowed"):
        opened(made(needs=["host_code"]))
    with pytest.raises(EngineError, match="the lean runtime is missing"):
        opened(made(needs=["lean"]))
    needs = made(needs=["host_code", "lean"])
    assert run(opened(needs, host_code=True, lean_runtime="a.so.8"), 1.0) == [2.0] * 2


def test_a_lean_library_that_does_not_load_is_an_error(gpu: Any, trt: Any) -> None:
    with pytest.raises(EngineError, match=r"lean runtime /nowhere\.txt\n    no such library"):
        opened(made(), lean_runtime="/nowhere.txt")


def test_a_refused_engine_is_an_error_with_words_and_memory(gpu: Any, trt: Any) -> None:
    with pytest.raises(EngineError, match="built for another GPU") as caught:
        opened(made(refused="built for another GPU"))
    assert "tensorrt 10.13.0.35 cannot open the engine" in caught.value.happened
    assert f"{FREE >> 20} of {TOTAL >> 20} MiB of GPU memory are free" in caught.value.happened
    with pytest.raises(EngineError) as caught:
        opened(made(refused="too new"))
    assert "another GPU" not in str(caught.value)


def test_no_runtime_is_an_error(gpu: Any, trt: Any) -> None:
    """What the bindings say where there is no driver."""

    def none(logger: Any) -> None:
        logger.log(trt.ILogger.Severity.ERROR, "CUDA initialization failure with error: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    trt.Runtime = none
    with pytest.raises(EngineError, match="create a runtime\n    CUDA initialization failure"):
        opened(made())


def test_a_library_that_cannot_be_imported_is_an_error(
    gpu: Any, install: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_lean", None)
    with pytest.raises(EngineError, match="tensorrt_lean cannot be imported: ModuleNotFoundError"):
        opened(made(), name="tensorrt_lean")


def test_two_libraries_side_by_side(gpu: Any, install: Any) -> None:
    trt, rtx = install("tensorrt"), install("tensorrt_rtx", "1.7.1.116")
    one, other = opened(made()), opened(made(), "tensorrt_rtx", "1.7.1.116")
    assert one.opened is not other.opened
    assert (run(one, 1.0), run(other, 2.0)) == ([2.0] * 2, [3.0] * 2)
    for lib in (trt, rtx):
        assert methods(lib, "deserialize_cuda_engine") == 1
        assert len(lib.executed) == 1
        assert all(part.library is lib for part, *_ in lib.calls)


def test_the_words_of_a_library_go_to_the_log(
    gpu: Any, trt: Any, caplog: pytest.LogCaptureFixture
) -> None:
    session = opened(made())
    severity = trt.ILogger.Severity
    with caplog.at_level(logging.DEBUG, "portrt.tensorrt"):
        for level in severity:
            session.opened.engine.logger.log(level, f"words of {level.name}")
    said = {record.message: record.levelname for record in caplog.records}
    assert said["tensorrt: words of INTERNAL_ERROR"] == "ERROR"
    assert said["tensorrt: words of ERROR"] == "WARNING"
    assert said["tensorrt: words of WARNING"] == "INFO"
    assert said["tensorrt: words of INFO"] == "DEBUG"
    assert "tensorrt: words of VERBOSE" not in said


@pytest.mark.parametrize(
    ("built", "old"), [("8.6.0.12", True), ("10.0.1", True), ("10.1.0", False), ("11.0.0", False)]
)
def test_the_plans_release_decides_how_memory_is_given(
    gpu: Any, trt: Any, built: str, old: bool
) -> None:
    """The fake refuses the way of the others."""
    session = opened(made(memory=[64], **({"old": True} if old else {})), built=built)
    assert run(session, 1.0) == [2.0] * 2
