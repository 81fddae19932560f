"""The policy: who says what may run, and who wins."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from portrt.errors import SettingsError
from portrt.runtime import Policy, policy
from portrt.runtime.policy import CONTEXT, ENV_ENGINES, ENV_FALLBACK, effective


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENV_FALLBACK, raising=False)
    monkeypatch.delenv(ENV_ENGINES, raising=False)


def in_force(stored: dict[str, Any] | None = None) -> tuple[str | None, tuple[str, ...] | None]:
    found = effective(stored or {}, CONTEXT.get())
    return found.fallback, found.engines


def test_the_default_is_eager_and_any_engine() -> None:
    assert in_force() == ("eager", None)


def test_the_context_manager_rules_its_block_alone() -> None:
    with policy(fallback="error", engines=["onnxruntime"]) as inner:
        assert inner == Policy("error", ("onnxruntime",))
        assert in_force() == ("error", ("onnxruntime",))
    assert in_force() == ("eager", None)


def test_the_context_manager_ends_with_an_exception() -> None:
    with pytest.raises(KeyError), policy(fallback="error"):
        raise KeyError
    assert in_force() == ("eager", None)


def test_an_inner_policy_keeps_what_it_does_not_say() -> None:
    with policy(fallback="error"), policy(engines="onnxruntime"):
        assert in_force() == ("error", ("onnxruntime",))
        with policy(fallback="eager"):
            assert in_force() == ("eager", ("onnxruntime",))
        assert in_force() == ("error", ("onnxruntime",))


def test_no_engine_is_not_the_same_as_any_engine() -> None:
    with policy(engines=()):
        assert in_force() == ("eager", ())
    with policy(engines="onnxruntime"), policy(engines=()):
        assert in_force() == ("eager", ())


STORED = {"fallback": "eager", "engines": ["onnxruntime"]}


def test_the_stored_policy_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENV_FALLBACK, "error")
    monkeypatch.setenv(ENV_ENGINES, "tensorrt_rtx")
    assert in_force(STORED) == ("eager", ("onnxruntime",))


def test_the_context_wins_over_the_stored_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENV_FALLBACK, "eager")
    with policy(fallback="error", engines=["tensorrt_rtx"]):
        assert in_force(STORED) == ("error", ("tensorrt_rtx",))


def test_the_environment_wins_over_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENV_FALLBACK, "error")
    monkeypatch.setenv(ENV_ENGINES, " onnxruntime , tensorrt_rtx,")
    assert in_force() == ("error", ("onnxruntime", "tensorrt_rtx"))
    assert in_force({"fallback": None}) == ("error", ("onnxruntime", "tensorrt_rtx"))


def test_each_field_is_decided_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENV_FALLBACK, "error")
    monkeypatch.setenv(ENV_ENGINES, "tensorrt_rtx")
    assert in_force({"fallback": "eager"}) == ("eager", ("tensorrt_rtx",))
    with policy(engines="onnxruntime"):
        assert in_force({}) == ("error", ("onnxruntime",))


def test_an_empty_list_in_the_environment_allows_no_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(ENV_ENGINES, "")
    monkeypatch.setenv(ENV_FALLBACK, "")
    assert in_force() == ("eager", ())


def test_an_unknown_stored_engine_allows_nothing_and_is_no_error() -> None:
    assert in_force({"engines": ["of_tomorrow", "onnxruntime"]}) == ("eager", ("onnxruntime",))
    assert in_force({"engines": ["of_tomorrow"]}) == ("eager", ())


@pytest.mark.parametrize("bad", ["gpu", "Eager", "", 1, ["eager"]])
def test_an_unknown_fallback_is_refused(bad: Any) -> None:
    with pytest.raises(SettingsError, match="fallback is") as caught, policy(fallback=bad):
        pass
    assert caught.value.expected == "one of 'eager', 'error', 'inductor'"
    assert caught.value.remedy
    assert in_force() == ("eager", None)


@pytest.mark.parametrize("bad", ["tensorflow", ["onnxruntime", "cuda"], [1], [None], "", [[]]])
def test_an_unknown_engine_is_refused(bad: Any) -> None:
    with pytest.raises(SettingsError, match="names the engine") as caught, policy(engines=bad):
        pass
    assert "'onnxruntime'" in caught.value.expected
    assert in_force() == ("eager", None)


def test_engines_that_are_no_list_are_refused() -> None:
    with pytest.raises(SettingsError, match="engines is 5"), policy(engines=5):  # type: ignore[arg-type]
        pass


@pytest.mark.parametrize("name", [ENV_FALLBACK, ENV_ENGINES])
def test_a_bad_variable_is_refused_by_its_name(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "nonsense")
    with pytest.raises(SettingsError, match=f"the environment has .*{name}='nonsense'") as caught:
        in_force()
    assert caught.value.remedy == "correct or unset the variable"


def test_a_policy_does_not_leak_into_another_thread() -> None:
    seen: list[Any] = []
    with policy(fallback="error"):
        thread = threading.Thread(target=lambda: seen.append(in_force()))
        thread.start()
        thread.join()
    assert seen == [("eager", None)]


def test_a_policy_of_a_thread_does_not_leak_out_of_it() -> None:
    entered, leave = threading.Event(), threading.Event()
    left: list[bool] = []

    def hold() -> None:
        with policy(fallback="error"):
            entered.set()
            left.append(leave.wait(600))

    thread = threading.Thread(target=hold)
    thread.start()
    assert entered.wait(600)
    try:
        assert in_force() == ("eager", None)
    finally:
        leave.set()
        thread.join()
    assert left == [True]


def test_tasks_keep_their_own_policy_across_awaits() -> None:
    async def task(fallback: str, turns: list[str]) -> list[Any]:
        seen = []
        with policy(fallback=fallback):
            for _ in range(3):
                turns.append(fallback)
                await asyncio.sleep(0)
                seen.append(in_force())
        return seen

    async def both(turns: list[str]) -> Any:
        return await asyncio.gather(task("error", turns), task("eager", turns))

    turns: list[str] = []
    assert asyncio.run(both(turns)) == [[("error", None)] * 3, [("eager", None)] * 3]
    assert turns[:4] == ["error", "eager", "error", "eager"]  # they did take turns


def test_a_task_takes_the_policy_of_where_it_was_made() -> None:
    async def task() -> Any:
        return in_force()

    async def make() -> Any:
        with policy(fallback="error"):
            made = asyncio.create_task(task())
        return await made

    assert asyncio.run(make()) == ("error", None)
