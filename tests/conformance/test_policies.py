"""The cases of `conformance/policies.json`."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack
from typing import Any

import pytest
from stored_cases import cases_of, names_of

from portrt.errors import SettingsError
from portrt.format.manifest import Blob, EngineSpec
from portrt.runtime import Policy, policy
from portrt.runtime.choice import choose, engine_verdict
from portrt.runtime.policy import CONTEXT, ENVIRONMENT, effective
from portrt.verdict import YES, Verdict

CASES = cases_of("policies")


def policy_of(case: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Policy:
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    for name, value in case["environment"].items():
        monkeypatch.setenv(name, value)
    with ExitStack() as stack:
        for fields in case["context"]:
            stack.enter_context(policy(**fields))
        return effective(case["stored"], CONTEXT.get())


def verdict_of(engine: dict[str, Any], found: Policy, device: str) -> Verdict:
    code = engine["machine"]
    requires = {"device": engine["devices"], "host_code": engine.get("host_code", False)}
    data = Blob(0, 0, "0" * 64)
    spec = EngineSpec(backend=engine["backend"], data=data, requires=requires)
    of_machine = YES if code == "ok" else Verdict.no(code, "as the case has it")
    return engine_verdict(spec, found, device, lambda: of_machine)


@pytest.mark.parametrize("case", CASES, ids=names_of(CASES))
def test_policy(case: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    if "error" in case:
        with pytest.raises(SettingsError):
            policy_of(case, monkeypatch)
        return
    found = policy_of(case, monkeypatch)
    fields = dataclasses.asdict(found)
    assert fields.pop("runtime") == "python"  # a choice that Python alone has
    assert {
        name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()
    } == case["effective"]
    verdicts = [
        (engine["backend"], verdict_of(engine, found, case["device"])) for engine in case["engines"]
    ]
    assert [verdict.code for _, verdict in verdicts] == case["codes"]
    choice = choose(
        verdicts,
        found,
        has_source=case["source"],
        builders=lambda: iter(case["builders"]),
        compiles=lambda: case.get("compiler", False),
    )
    wanted = case["choice"]
    assert choice.kind == wanted["kind"]
    assert choice.name == wanted.get("name", "")
    assert choice.verdict.code == wanted.get("code", "ok")
