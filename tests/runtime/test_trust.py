"""trust: an engine that carries host code runs only where somebody vouched for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from click.testing import CliRunner
from tiny import Call, call_of, compiled, edit_program, shared

import portrt
from portrt.cli import cli
from portrt.engines import registry
from portrt.engines.base import OpenOptions, Session
from portrt.errors import NoUsableEngineError, PackageError, SettingsError
from portrt.files.check_file import check
from portrt.files.verify_engines import verify
from portrt.runtime import policy, trust
from portrt.runtime.policy import ENV_TRUST
from portrt.runtime.select import FallbackWarning
from portrt.targets import backends
from portrt.targets.backends import BackendInfo
from portrt.targets.trust import NOT_TRUSTED
from portrt.verdict import YES, Verdict

X = torch.linspace(-1, 1, 24).view(3, 8)
REFUSED = "fake: no: it carries host code: refused unless trust='host-code'"
FAKE = BackendInfo(name="fake", runtime="nowhere:Fake")


class Fake(Session):
    """Opens anything, and tells what it was told of host code; its outputs are 42."""

    name = "fake"

    def __init__(self) -> None:
        self.allowed: list[bool] = []

    def accepts(self, engine: Any, device: torch.device) -> Verdict:
        return YES

    def open(self, *args: Any, options: OpenOptions, **others: Any) -> Any:
        self.allowed.append(options.trusted_host_code)
        return self

    def run(self, inputs: Any, shapes: Any) -> list[torch.Tensor]:
        return [torch.full(shape, 42.0) for shape in shapes]


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    made = Fake()
    real = registry.runtime
    monkeypatch.setitem(backends.BUILT_IN, "fake", FAKE)
    monkeypatch.setattr(registry, "runtime", lambda name: made if name == "fake" else real(name))
    monkeypatch.setattr(trust, "_trusted", set())
    monkeypatch.delenv(ENV_TRUST, raising=False)
    yield made


def carries(entry: dict[str, Any]) -> None:
    requires = {"device": ["cpu"], "host_code": True}
    entry["engines"][0].update(backend="fake", requires=requires)


def call() -> Call:
    found = call_of(shared("onnxruntime")).edited(carries)
    trust._trusted.clear()  # this process did not build it
    return found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    program = compiled("onnxruntime")
    trust._trusted.clear()  # nor this
    edit_program(program, carries)
    torch.export.save(program, tmp_path / "carries.pt2")
    return tmp_path / "carries.pt2"


def ran(run: Any) -> str:
    (result,) = run(X)
    if (result == 42.0).all():
        return "fake"
    torch.testing.assert_close(result, tiny.model()(X).detach())
    return "eager"


def test_it_is_refused_before_its_bytes_reach_the_backend(fake: Fake) -> None:
    with pytest.warns(FallbackWarning, match=REFUSED.replace("(", r"\(")):
        assert ran(call()) == "eager"
    with policy(fallback="error"), pytest.raises(NoUsableEngineError) as caught:
        call()(X)
    assert REFUSED in caught.value.happened
    assert "trust='host-code'" in caught.value.happened
    assert fake.allowed == []


def test_an_engine_without_host_code_needs_no_trust_and_is_given_none(fake: Fake) -> None:
    plain = call().edited(lambda entry: entry["engines"][0]["requires"].update(host_code=False))
    assert ran(plain) == "fake"
    assert fake.allowed == [False]  # whatever its bytes are: the library is told so


def test_the_context_manager_gives_and_takes_it(fake: Fake) -> None:
    one = call()
    with policy(trust="host-code"):
        assert ran(one) == "fake"
        with policy(trust=()), pytest.warns(FallbackWarning):
            assert ran(one) == "eager"
        with policy(fallback="error"):
            assert ran(one) == "fake"
    with policy(fallback="error"), pytest.raises(NoUsableEngineError):  # though it is open
        one(X)
    assert fake.allowed == [True]


def test_the_environment_gives_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENV_TRUST, "host-code")
    assert ran(call()) == "fake"
    with policy(trust=()), pytest.warns(FallbackWarning):
        assert ran(call()) == "eager"
    monkeypatch.setenv(ENV_TRUST, "everything")
    with pytest.raises(SettingsError, match="PORTRT_TRUST='everything'"):
        call()(X)


def test_load_vouches_for_the_engines_of_its_file(file: Path) -> None:
    with pytest.warns(FallbackWarning):
        assert ran(lambda x: [portrt.load(file).module()(x)]) == "eager"
    loaded = portrt.load(file, trust="host-code")
    assert ran(lambda x: [loaded.module()(x)]) == "fake"
    assert [block.runs_as for block in portrt.runtime.report(loaded)] == ["fake"]
    with policy(trust=()), pytest.warns(FallbackWarning):
        assert ran(lambda x: [loaded.module()(x)]) == "eager"


def test_trust_goes_into_no_file(file: Path, tmp_path: Path) -> None:
    portrt.save(portrt.load(file, trust="host-code"), tmp_path / "again.pt2")
    assert (tmp_path / "again.pt2").read_bytes().count(b"trust") == 0
    trust._trusted.clear()
    with pytest.warns(FallbackWarning):
        assert ran(lambda x: [portrt.load(tmp_path / "again.pt2").module()(x)]) == "eager"


def test_what_a_file_says_of_its_trust_is_not_believed() -> None:
    forged = call().edited(lambda entry: entry["policy"].update(trust=["host-code"]))
    with pytest.warns(FallbackWarning):
        assert ran(forged) == "eager"


def test_what_compile_built_is_trusted_in_its_process() -> None:
    program = compiled("onnxruntime")
    edit_program(program, carries)
    assert ran(lambda x: [program.module()(x)]) == "fake"


@pytest.mark.parametrize("bad", ["all", "", ["host-code", "x"], 1])
def test_unknown_trust_is_refused(bad: Any, file: Path) -> None:
    with pytest.raises(SettingsError), policy(trust=bad):
        pass
    with pytest.raises(SettingsError):
        portrt.load(file, trust=bad)
    with pytest.raises(SettingsError):
        check(file, trust=bad)


@pytest.mark.parametrize("bad", ["yes", 1, None, []])
def test_a_manifest_says_true_or_false(bad: Any) -> None:
    entry = call().edited(lambda e: e["engines"][0]["requires"].update(host_code=bad))
    with pytest.raises(PackageError, match="'host_code'"):
        entry(X)


def test_check_judges_by_the_trust_that_will_be_given(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("portrt.files.check_file.check_requirements", lambda *_: YES)
    (block,) = check(file).blocks
    assert (block.outcome, block.engines[0].verdict) == ("fallback", NOT_TRUSTED)
    assert check(file, trust="host-code").outcome == "engine"
    runner = CliRunner()
    assert runner.invoke(cli, ["check", str(file)]).exit_code == 1
    assert runner.invoke(cli, ["check", str(file), "--trust", "host-code"]).exit_code == 0


def test_verify_follows_the_policy(file: Path, fake: Fake) -> None:
    (block,) = verify(file).blocks
    assert (block.engines[0].ran, block.engines[0].reason) == (False, NOT_TRUSTED.reason)
    assert fake.allowed == []
    with policy(trust="host-code"):
        (block,) = verify(file).blocks
    assert block.engines[0].ran
    assert not block.engines[0].ok  # 42 is no right answer
    done = CliRunner().invoke(cli, ["verify", str(file), "--trust", "host-code"])
    assert done.exit_code == 1
    assert "WORSE" in done.output
