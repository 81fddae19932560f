"""The choice of an engine: verdicts in order, the first that fits, the source, or a refusal."""

from __future__ import annotations

import contextvars
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from tiny import Call, call_of, compiled, edit_program, model, python, shared

import portrt
from portrt.engines import registry
from portrt.engines.base import OpenOptions, Session
from portrt.errors import EngineError, NoUsableEngineError, PackageError
from portrt.format.manifest import Signature
from portrt.runtime import policy, report
from portrt.runtime.block import LoadedBlock
from portrt.runtime.select import FallbackWarning
from portrt.targets import backends
from portrt.targets.backends import BackendInfo
from portrt.verdict import Verdict

ENGINES = ("tensorrt_rtx", "onnxruntime")
X = torch.linspace(-1, 1, 24).view(3, 8)

FAKE = BackendInfo(name="fake", runtime="nowhere:Fake")


@dataclass
class Fake(Session):
    """A backend of the name `fake`, whose session adds a number that tells who ran."""

    verdict: Verdict = field(default_factory=lambda: Verdict.yes("fake is here"))
    error: Exception | None = None
    meanwhile: Callable[[], Any] = lambda: None
    opened: list[bytes] = field(default_factory=list)
    name = "fake"

    def accepts(self, engine: Any, device: torch.device) -> Verdict:
        return self.verdict

    def open(
        self,
        engine: Any,
        signature: Signature,
        data: torch.Tensor,
        weights: Any,
        *,
        device: torch.device,
        options: OpenOptions,
    ) -> Any:
        self.opened.append(data.numpy().tobytes())
        self.meanwhile()
        if self.error:
            raise self.error
        return self

    def run(self, inputs: Any, shapes: Any) -> list[torch.Tensor]:
        return [torch.full(shape, 42.0) for shape in shapes]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    made = Fake()
    real = registry.runtime
    monkeypatch.setitem(backends.BUILT_IN, "fake", FAKE)
    monkeypatch.setattr(registry, "runtime", lambda name: made if name == "fake" else real(name))
    yield made


def with_fake(edit: Callable[[dict[str, Any]], Any] | None = None) -> Call:
    """A call whose first engine is for `fake`, on CPU tensors."""

    def both(entry: dict[str, Any]) -> None:
        entry["engines"][0].update(backend="fake", requires={"device": ["cpu"]})
        if edit:
            edit(entry)

    return call_of(shared(*ENGINES)).edited(both)


def ran(call: Call) -> str:
    (result,) = call(X)
    if (result == 42.0).all():
        return "fake"
    torch.testing.assert_close(result, model()(X))
    return "right numbers"


def test_the_first_engine_that_fits_runs(fake: Fake) -> None:
    call = with_fake()
    assert ran(call) == "fake"
    assert fake.opened == [call.blobs[2].numpy().tobytes()]


def test_an_engine_that_does_not_fit_is_not_opened(fake: Fake) -> None:
    fake.verdict = Verdict.no("library_missing", "not today")
    assert ran(with_fake()) == "right numbers"
    assert fake.opened == []


@pytest.mark.parametrize(
    "error",
    [
        EngineError("the library refused it", "another", "wait"),
        RuntimeError("the library refused it"),
        AttributeError("the library refused it"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_engine_that_fails_to_open_goes_on_to_the_next(fake: Fake, error: Exception) -> None:
    fake.error = error
    assert ran(with_fake()) == "right numbers"
    with policy(engines=["fake"]), pytest.warns(FallbackWarning) as caught:
        ran(with_fake())
    assert "fake: no: it could not be opened" in str(caught[0].message)
    assert "the library refused it" in str(caught[0].message)


def test_a_damaged_engine_is_not_passed_over(fake: Fake) -> None:
    call = with_fake()
    call.blobs[2][3] ^= 1
    with pytest.raises(PackageError, match="engine fake of block_0 is damaged"):
        call(X)
    assert fake.opened == []


def test_no_usable_engine_lists_every_verdict(fake: Fake) -> None:
    fake.verdict = Verdict.no("library_missing", "not today", "come tomorrow")
    with policy(fallback="error", engines=["fake"]), pytest.raises(NoUsableEngineError) as caught:
        with_fake()(X)
    text = caught.value.happened
    assert "no engine of block_0 can run here on cpu tensors" in text
    assert "the policy forbids PyTorch" in text
    assert "\n    fake: no: not today (come tomorrow)" in text
    assert "\n    onnxruntime: no: the policy allows fake" in text
    assert caught.value.expected
    assert "fallback='eager'" in caught.value.remedy


def test_the_refusal_is_repeated_at_each_call(fake: Fake) -> None:
    call = with_fake()
    for _ in range(2):
        with policy(fallback="error", engines=()), pytest.raises(NoUsableEngineError):
            call(X)


def test_without_a_source_there_is_no_fallback() -> None:
    call = call_of(shared(*ENGINES))

    def strip(entry: dict[str, Any]) -> None:
        entry.update(source=None, blob_count=3, source_weights=[])
        for index, engine in enumerate(entry["engines"], 1):
            engine["data"]["blob"] = index

    stripped = Call((call.blobs[0], *call.blobs[2:]), call.edited(strip).entry)
    assert ran(stripped) == "right numbers"
    with policy(engines=()), pytest.raises(NoUsableEngineError, match="the file has no source"):
        stripped(X)


def test_the_fallback_warns_once_with_every_verdict_and_gives_eagers_numbers() -> None:
    call = call_of(shared(*ENGINES))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with policy(engines=()):
            results = [call(X)[0] for _ in range(3)]
        with policy(engines=(), fallback="eager"):
            call(X)
    said = [str(item.message) for item in caught if item.category is FallbackWarning]
    assert len(said) == 1
    assert said[0] == (
        "block_0 runs in PyTorch: no stored engine can run here on cpu tensors."
        "\n    tensorrt_rtx: no: the policy allows no engine"
        "\n    onnxruntime: no: the policy allows no engine"
    )
    for result in results:
        assert torch.equal(result, model()(X))


def test_each_block_warns_for_itself() -> None:
    calls = [call_of(shared(*ENGINES)) for _ in range(2)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with policy(engines=()):
            for call in calls * 2:
                call(X)
    assert [item.category for item in caught] == [FallbackWarning] * 2


def test_a_warning_made_an_error_is_raised_at_each_call() -> None:
    call = call_of(shared(*ENGINES))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            with policy(engines=()), pytest.raises(FallbackWarning):
                call(X)


def test_an_engine_for_another_device_says_so() -> None:
    with (
        policy(engines="tensorrt_rtx", fallback="error"),
        pytest.raises(
            NoUsableEngineError,
            match="tensorrt_rtx: no: it takes cuda tensors, the inputs are on cpu",
        ),
    ):
        call_of(shared(*ENGINES))(X)


def test_an_unknown_backend_is_a_verdict() -> None:
    call = call_of(shared(*ENGINES)).edited(
        lambda entry: entry["engines"][1].update(backend="of_tomorrow")
    )
    with pytest.warns(FallbackWarning, match="of_tomorrow: no: this version of portrt does not"):
        assert ran(call) == "right numbers"


def test_the_stored_policy_is_followed() -> None:
    call = call_of(compiled(*ENGINES, fallback="error")).edited(
        lambda entry: entry["policy"].update(engines=["tensorrt_rtx"])
    )
    with pytest.raises(
        NoUsableEngineError, match="onnxruntime: no: the policy allows tensorrt_rtx"
    ):
        call(X)
    with policy(engines=["onnxruntime"]):
        assert ran(call) == "right numbers"
    with pytest.raises(NoUsableEngineError):
        call(X)


def test_a_stored_policy_for_an_unknown_engine_is_no_error() -> None:
    call = call_of(shared(*ENGINES)).edited(
        lambda entry: entry["policy"].update(engines=["of_tomorrow", "onnxruntime"])
    )
    with policy(fallback="error"):
        assert ran(call) == "right numbers"


def test_one_engine_is_opened_once_whichever_policies_choose_it(fake: Fake) -> None:
    call = with_fake()
    ran(call)
    for names in (["fake"], ["fake", "onnxruntime"]):
        for fallback in ("eager", "error"):
            with policy(engines=names, fallback=fallback):
                assert ran(call) == "fake"
    assert len(fake.opened) == 1


def within(function: Any, threads: Sequence[threading.Thread]) -> bool:
    """Whether all these threads are in a call of a function of Python, whatever they do there."""
    frames = sys._current_frames()
    for thread in threads:
        frame = frames.get(thread.ident or 0)
        while frame is not None and frame.f_code is not function.__code__:
            frame = frame.f_back
        if frame is None:
            return False
    return True


def test_many_threads_open_an_engine_once(fake: Fake) -> None:
    """It is open only when all are in the block, and each has found that it is not open yet."""
    call = with_fake()
    results: list[str] = []

    def all_are_there() -> None:
        deadline = time.monotonic() + 300
        while not within(LoadedBlock.selection, threads):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    fake.meanwhile = all_are_there
    threads = [
        threading.Thread(target=lambda: results.extend(ran(call) for _ in range(5)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == ["fake"] * 40
    assert len(fake.opened) == 1


def test_an_engine_that_is_being_opened_does_not_hold_up_other_blocks(fake: Fake) -> None:
    opening, release = threading.Event(), threading.Event()
    released: list[bool] = []

    class Slow(Fake):
        def open(self, *args: Any, **options: Any) -> Any:
            opening.set()
            released.append(release.wait(600))
            return super().open(*args, **options)

    known = call_of(shared(*ENGINES))
    ran(known)
    slow = Slow()
    real = registry.runtime
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "runtime", lambda name: slow if name == "fake" else real(name))
        thread = threading.Thread(target=lambda: with_fake()(X))
        thread.start()
        assert opening.wait(600)
        try:
            # One that is loaded already, and one that is loaded now: in this thread, with no
            # other to release the lock that they might wait for.
            assert ran(known) == "right numbers"
            assert ran(call_of(shared("onnxruntime"))) == "right numbers"
        finally:
            release.set()
            thread.join()
    assert released == [True]


def test_a_warning_hook_may_call_the_block_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    call = call_of(shared(*ENGINES))
    depth: list[int] = []

    def show(*args: Any, **kwargs: Any) -> None:
        if len(depth) < 3:
            depth.append(1)
            call(X)

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        monkeypatch.setattr(warnings, "showwarning", show)
        with policy(engines=()):
            context = contextvars.copy_context()
            done = threading.Thread(target=lambda: context.run(call, X), daemon=True)
            done.start()
            done.join(600)
    assert not done.is_alive()
    assert depth


def test_the_report_opens_nothing(fake: Fake) -> None:
    program = compiled(*ENGINES)
    edit_program(
        program, lambda e: e["engines"][0].update(backend="fake", requires={"device": ["cpu"]})
    )
    (block,) = report(program)
    assert (block.name, block.node_count, block.runs_as) == ("block_0", 3, "fake")
    assert [name for name, _ in block.verdicts] == ["fake", "onnxruntime"]
    assert all(verdict for _, verdict in block.verdicts)
    assert fake.opened == []


def test_the_report_follows_device_and_policy() -> None:
    program = shared(*ENGINES)
    assert [block.runs_as for block in report(program)] == ["onnxruntime"]
    assert [block.runs_as for block in report(program.module())] == ["onnxruntime"]
    assert [block.runs_as for block in report(program, "cuda:0")] == ["eager"]
    assert [block.runs_as for block in report(program, torch.device("cpu"))] == ["onnxruntime"]
    with policy(engines="tensorrt_rtx", fallback="error"):
        (block,) = report(program)
    assert block.runs_as == ""
    assert str(block).splitlines() == [
        "block_0 (3 operators) runs as nothing",
        "  tensorrt_rtx: no: it takes cuda tensors, the inputs are on cpu",
        "  onnxruntime: no: the policy allows tensorrt_rtx",
    ]


def test_the_report_of_a_program_without_engines_is_empty() -> None:
    assert report(torch.export.export(model(), (X,))) == []


def test_what_ran_is_what_the_report_said() -> None:
    from portrt.runtime.op import load_block

    call = call_of(shared(*ENGINES))
    call(X)
    (selection,) = load_block(call.blobs, call.text).selections.values()
    (block,) = report(shared(*ENGINES))
    assert (selection.name, selection.verdicts) == (block.runs_as, block.verdicts)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("select") / "tiny.pt2"
    torch.export.save(shared(*ENGINES), path)
    return str(path)


CODE = """
    import sys, warnings, torch
    program = torch.export.load(sys.argv[1]).module()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            program(torch.ones(2, 8))
            print("ran", end=" ")
        except Exception as err:
            print(type(err).__name__, end=" ")
    print(sum(w.category.__name__ == "FallbackWarning" for w in caught))
"""


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({}, "ran 0"),
        ({"PORTRT_ENGINES": "tensorrt_rtx"}, "ran 1"),
        ({"PORTRT_ENGINES": "tensorrt_rtx", "PORTRT_FALLBACK": "error"}, "NoUsableEngineError 0"),
        ({"PORTRT_ENGINES": "", "PORTRT_FALLBACK": "eager"}, "ran 1"),
        ({"PORTRT_FALLBACK": "perhaps"}, "SettingsError 0"),
    ],
    ids=str,
)
def test_the_environment_of_a_new_process_is_followed(
    saved: str, env: dict[str, str], said: str
) -> None:
    done = python(CODE, saved, **env)
    assert done.stdout.strip() == said, done.stderr


def test_the_public_runtime_names_are_reachable_from_portrt() -> None:
    assert portrt.runtime.policy is policy
    assert portrt.runtime.report is report


def test_engine_calls_are_found_where_they_were() -> None:
    from portrt.runtime.calls import engine_calls
    from portrt.runtime.report import engine_calls as found

    assert found is engine_calls
