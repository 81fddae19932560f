"""Rebuild: where no stored engine fits, one is built from the source, checked, and kept."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from models import CASES
from tiny import call_of, compiled, edit_program, python

import portrt
from portrt.compiler.backends.onnxruntime.build import OnnxRuntimeBuilder
from portrt.compiler.building import engine_cache
from portrt.engines.base import OpenOptions
from portrt.engines.onnxruntime.runtime import OnnxRuntimeRuntime
from portrt.errors import BuildError, EngineError, NoUsableEngineError, PackageError, SettingsError
from portrt.runtime import policy
from portrt.runtime.calls import manifests_of
from portrt.runtime.op import load_block
from portrt.runtime.policy import ENV_REBUILD, effective
from portrt.runtime.select import FallbackWarning

X = torch.linspace(-1, 1, 40).view(5, 8)
WANTED = tiny.model()(X).detach()


def misfit(call: tiny.Call) -> tiny.Call:
    """The call with engines that no portrt of today knows."""

    def edit(entry: dict[str, Any]) -> None:
        for engine in entry["engines"]:
            engine["backend"] = "of_tomorrow"

    return call.edited(edit)


@pytest.fixture
def call() -> tiny.Call:
    return misfit(call_of(tiny.shared("onnxruntime")))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("PORTRT_CACHE_DIR", str(folder))
    return folder


def kept(cache: Path) -> int:
    return len(list(cache.glob("v1/engine-*")))


SCRIPT = """
import json, logging, sys
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
import torch
program = torch.export.load(sys.argv[1])
x = torch.linspace(-1, 1, 40).view(5, 8)
print(json.dumps(program.module()(x).tolist()))
"""


@pytest.mark.parametrize("how", ["unknown", "stripped"])
def test_a_new_process_rebuilds_cold_and_takes_it_warm(
    how: str, tmp_path: Path, cache: Path
) -> None:
    program = compiled("onnxruntime", cache_dir="off")

    def edit(entry: dict[str, Any]) -> None:
        entry["policy"]["rebuild"] = "missing"
        entry["engines"][0]["backend"] = "of_tomorrow"
        if how == "stripped":  # and a policy that allows one engine alone
            entry["engines"][0]["requires"]["device"] = ["npu"]
            entry["policy"]["engines"] = ["onnxruntime"]

    edit_program(program, edit)
    path = tmp_path / "misfit.pt2"
    torch.export.save(program, path)
    cold = python(SCRIPT, str(path))
    warm = python(SCRIPT, str(path))
    for done in (cold, warm):
        assert done.returncode == 0, done.stderr
        torch.testing.assert_close(torch.tensor(json.loads(done.stdout)), WANTED)
        assert "runs as onnxruntime, rebuilt; of_tomorrow: no" in done.stderr
        assert "FallbackWarning" not in done.stderr
    assert "converted block_0" in cold.stderr
    assert "converted block_0" not in warm.stderr
    assert "took the onnxruntime engine of block_0 from the cache" in warm.stderr
    assert kept(cache) == 1


def test_never_is_the_default(call: tiny.Call, cache: Path) -> None:
    before = set(cache.rglob("*"))  # what compiling left there
    with pytest.warns(FallbackWarning):
        (found,) = call(X)
    torch.testing.assert_close(found, WANTED)
    assert set(cache.rglob("*")) == before


def test_a_rebuilt_engine_is_an_engine_and_has_its_line(call: tiny.Call, cache: Path) -> None:
    with policy(rebuild="missing", fallback="error"):
        (found,) = call(X)
        selection = load_block(call.blobs, call.text).selection(torch.device("cpu"))
    torch.testing.assert_close(found, WANTED)
    assert selection.name == "onnxruntime"
    assert [name for name, _ in selection.verdicts] == ["of_tomorrow", "onnxruntime, rebuilt"]
    assert kept(cache) == 1


def test_it_is_built_once_for_all_policies(
    call: tiny.Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    with policy(rebuild="missing"):
        call(X)
    monkeypatch.setattr(
        "portrt.compiler.parts.rebuild.rebuild", lambda *_: pytest.fail("built again")
    )
    with policy(rebuild="missing", engines="onnxruntime"):
        (found,) = call(X)
    torch.testing.assert_close(found, WANTED)


def test_an_engine_that_fits_is_not_rebuilt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portrt.compiler.parts.rebuild.rebuild", lambda *_: pytest.fail("built"))
    with policy(rebuild="missing"):
        (found,) = call_of(tiny.shared("onnxruntime"))(X)
    torch.testing.assert_close(found, WANTED)


@pytest.mark.parametrize("engines", [(), ("tensorrt_rtx",)])
def test_only_allowed_backends_are_rebuilt(
    call: tiny.Call, engines: tuple[str, ...], cache: Path
) -> None:
    with policy(rebuild="missing", engines=engines), pytest.warns(FallbackWarning):
        (found,) = call(X)
    torch.testing.assert_close(found, WANTED)
    assert kept(cache) == 0


def test_a_stripped_source_is_honoured(call: tiny.Call) -> None:
    def strip(entry: dict[str, Any]) -> None:
        del entry["engines"][0]  # of three blobs, its engine was the last
        entry["source"]["blob"] = 1
        entry["blob_count"] = 2

    without_engine = tiny.Call(call.blobs[:2], call.entry).edited(strip)
    with policy(rebuild="missing", fallback="error"):
        torch.testing.assert_close(without_engine(X)[0], WANTED)  # it has its source still

    def strip_source(entry: dict[str, Any]) -> None:
        entry["source"], entry["blob_count"] = None, 2
        entry["engines"][0]["data"]["blob"] = 1

    bare = tiny.Call((call.blobs[0], call.blobs[2]), call.entry).edited(strip_source)
    with policy(rebuild="missing"), pytest.raises(NoUsableEngineError, match="no source"):
        bare(X)


def test_a_failed_build_is_one_more_line_and_the_source_runs(
    call: tiny.Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise BuildError("the builder is on strike", "work", "negotiate")

    monkeypatch.setattr(OnnxRuntimeBuilder, "build", refuse)
    line = (
        r"onnxruntime, rebuilt: no: it could not be rebuilt: the builder is on strike \(negotiate"
    )
    with policy(rebuild="missing"), pytest.warns(FallbackWarning, match=line):
        (found,) = call(X)
    torch.testing.assert_close(found, WANTED)
    other = tiny.Call(tuple(blob.clone() for blob in call.blobs), call.entry)
    with (
        policy(rebuild="missing", fallback="error"),
        pytest.raises(NoUsableEngineError, match=line),
    ):
        other(X)


def test_a_crash_of_the_exporter_is_one_more_line(
    call: tiny.Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OnnxRuntimeBuilder, "build", lambda *_: {}["gone"])
    with (
        policy(rebuild="missing"),
        pytest.warns(FallbackWarning, match="could not be rebuilt: KeyError"),
    ):
        torch.testing.assert_close(call(X)[0], WANTED)


def test_an_engine_with_other_numbers_never_runs(
    call: tiny.Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Built from a model with the same weights that adds a number."""

    class Shifted(tiny.Mlp):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + 0.5

    other = Shifted().eval()
    other.load_state_dict(tiny.model().state_dict())
    batch = torch.export.Dim("batch", min=1, max=32)
    program = portrt.compile(
        other,
        inputs=[torch.zeros(4, 8)],
        dynamic_shapes=({0: batch},),
        engines="onnxruntime",
        min_block_size=1,
        output_format="exported_program",
    )
    lying = call_of(program)
    spec = lying.engine("onnxruntime")
    real = OnnxRuntimeBuilder.build

    def build(*args: Any) -> Any:
        engine = real(*args)
        data = lying.blobs[spec["data"]["blob"]].numpy().tobytes()
        return dataclasses.replace(engine, data=data)

    monkeypatch.setattr(OnnxRuntimeBuilder, "build", build)
    with (
        policy(rebuild="missing"),
        pytest.warns(FallbackWarning, match="differs from PyTorch"),
    ):
        (found,) = call(X)
    torch.testing.assert_close(found, WANTED)


def test_a_wrong_engine_in_the_cache_is_found_by_its_numbers(
    call: tiny.Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry whose digests fit, and whose engine is another."""

    real = engine_cache._engine

    def lie(*args: Any) -> Any:
        found = real(*args)
        return found and dataclasses.replace(found, data=found.data.replace(b"Relu", b"Selu"))

    with policy(rebuild="missing"):
        torch.testing.assert_close(call(X)[0], WANTED)
    monkeypatch.setattr(engine_cache, "_engine", lie)
    again = tiny.Call(tuple(blob.clone() for blob in call.blobs), call.entry)
    with (
        policy(rebuild="missing"),
        pytest.warns(FallbackWarning, match="differs from PyTorch in output"),
    ):
        torch.testing.assert_close(again(X)[0], WANTED)


def test_an_engine_that_cannot_be_checked_is_not_used(
    call: tiny.Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    from portrt.engines import eager

    def fail(*_: Any) -> Any:
        raise EngineError("the source fails on these inputs", "others", "give others")

    with monkeypatch.context() as patch:
        patch.setattr(eager.SourceSession, "run", fail)
        with (
            policy(rebuild="missing"),
            pytest.warns(FallbackWarning, match="the source fails on these inputs"),
            pytest.raises(EngineError),
        ):
            call(X)


def test_an_engine_that_does_not_open_is_one_more_line(
    call: tiny.Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = OnnxRuntimeRuntime.open

    def open_engine(*args: Any, options: OpenOptions, **others: Any) -> Any:
        if not options.low_memory:
            raise EngineError("no room for the session", "room", "make some")
        return real(*args, options=options, **others)

    monkeypatch.setattr(OnnxRuntimeRuntime, "open", open_engine)
    with policy(rebuild="missing"), pytest.warns(FallbackWarning, match="no room for the session"):
        torch.testing.assert_close(call(X)[0], WANTED)


@pytest.mark.parametrize("index", [0, 1], ids=["weights", "source"])
def test_damaged_blobs_are_not_built_from(call: tiny.Call, index: int, cache: Path) -> None:
    blob = call.blobs[index].clone()
    blob[-1] ^= 1
    with policy(rebuild="missing"), pytest.raises(PackageError, match="is damaged"):
        call.with_blob(index, blob)(X)
    assert kept(cache) == 0


def test_it_works_without_a_cache(call: tiny.Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTRT_CACHE_DIR", "off")
    with policy(rebuild="missing", fallback="error"):
        torch.testing.assert_close(call(X)[0], WANTED)


def test_within_no_grad_inference_mode_and_torch_modes(call: tiny.Call) -> None:
    """The build does not see the modes of the call."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Seen(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):  # type: ignore[no-untyped-def]
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    seen: list[str] = []
    with policy(rebuild="missing", fallback="error"), torch.inference_mode(), Seen():
        (found,) = call(X)
    torch.testing.assert_close(found, WANTED)
    assert seen == ["portrt.execute_engine.default"]


NAMES = ("mlp_float16", "mlp_bfloat16", "mlp_dim_dynamic", "bert", "mlp_static_of_one")


@pytest.mark.parametrize("name", NAMES)
def test_other_models_are_rebuilt_from_their_file(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    program = case.compile(cache_dir="off")
    edit_program(program, lambda entry: entry["engines"][0].update(backend="of_tomorrow"))
    portrt.save(program, tmp_path / "model.pt2")
    module = portrt.load(tmp_path / "model.pt2", rebuild="missing", fallback="error").module()
    for args, kwargs in case.arguments():
        with torch.no_grad():
            want = case.model()(*args, **kwargs)
        torch.testing.assert_close(module(*args, **kwargs), want, rtol=case.rtol, atol=case.atol)


def test_every_layer_of_the_policy_can_ask_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert effective({}, None).rebuild == "never"
    monkeypatch.setenv(ENV_REBUILD, "missing")
    assert effective({}, None).rebuild == "missing"
    assert effective({"rebuild": "never"}, None).rebuild == "never"
    with policy(rebuild="missing") as inner, policy(fallback="error") as innermost:
        assert effective({"rebuild": "never"}, inner).rebuild == "missing"
        assert effective({"rebuild": "never"}, innermost).rebuild == "missing"
    for unknown in ("always", 3, ["missing"], {}):
        assert effective({"rebuild": unknown}, None).rebuild == "never"


def test_an_unknown_rebuild_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="rebuild is 'always'"), policy(rebuild="always"):
        pass
    with pytest.raises(SettingsError, match="rebuild is 'always'"):
        portrt.load(tmp_path / "none.pt2", rebuild="always")
    monkeypatch.setenv(ENV_REBUILD, "always")
    with pytest.raises(SettingsError, match="PORTRT_REBUILD='always'"):
        effective({}, None)


def test_load_stores_it_and_a_saved_program_keeps_it(tmp_path: Path) -> None:
    portrt.save(tiny.shared("onnxruntime"), tmp_path / "a.pt2")
    program = portrt.load(tmp_path / "a.pt2", rebuild="missing")
    portrt.save(program, tmp_path / "b.pt2")
    stored = json.loads(manifests_of(portrt.load(tmp_path / "b.pt2"))[0])["policy"]
    assert stored["rebuild"] == "missing"
    assert "rebuild" not in json.loads(manifests_of(portrt.load(tmp_path / "a.pt2"))[0])["policy"]


def test_the_report_tells_what_would_be_built(call: tiny.Call) -> None:
    program = compiled("onnxruntime", cache_dir="off")
    edit_program(program, lambda entry: entry["engines"][0].update(backend="of_tomorrow"))
    (without,) = portrt.runtime.report(program)
    assert without.runs_as == "eager"
    with policy(rebuild="missing", fallback="error"):
        (block,) = portrt.runtime.report(program)
        assert block.runs_as == "onnxruntime"
        assert [name for name, _ in block.verdicts] == ["of_tomorrow", "onnxruntime, rebuilt"]
        torch.testing.assert_close(program.module()(X), WANTED)
    with policy(rebuild="missing", engines=()):
        assert portrt.runtime.report(program)[0].runs_as == "eager"


@pytest.mark.parametrize(
    "options", [{"torch_executed_ops": ["aten.exp"]}, {"strict": True}], ids=str
)
def test_it_takes_what_compile_built_with_options_that_only_choose_the_block(
    options: dict[str, Any], cache: Path
) -> None:
    program = compiled("onnxruntime", **options)  # and min_block_size=1
    assert kept(cache) == 1
    edit_program(program, lambda entry: entry["engines"][0].update(backend="of_tomorrow"))
    with policy(rebuild="missing", fallback="error"):
        torch.testing.assert_close(program.module()(X), WANTED)
    assert kept(cache) == 1
