"""`Settings`: defaults, names and values that are accepted, and errors that help."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import logging
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import portrt
from portrt.compiler.backends.inductor.options import InductorOptions
from portrt.compiler.backends.tensorrt.options import TensorRTOptions
from portrt.compiler.options import compile_options as types
from portrt.compiler.options import settings as settings_module
from portrt.compiler.options import values
from portrt.compiler.options.backend_options import option_classes, options_class
from portrt.compiler.options.fields import BackendOptions, Option, options_of, setting
from portrt.compiler.options.settings import Settings, all_options
from portrt.compiler.options.torch_tensorrt import (
    PRECISION_SYNONYMS,
    USE_PYTHON_RUNTIME,
    WITHOUT_MEANING,
)
from portrt.compiler.options.values import compute_capability, operator_name
from portrt.errors import SettingsError
from portrt.targets import backends
from portrt.targets.backends import BackendInfo


def test_no_option_gives_the_defaults() -> None:
    assert Settings.from_options({}) == Settings()


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().min_block_size = 3  # type: ignore[misc]


@pytest.mark.parametrize("option", all_options().values(), ids=lambda option: str(option.name))
def test_every_field_declares_all_of_its_option(option: Option) -> None:
    assert isinstance(option.rebuilds, bool)
    assert len(option.help) <= 100
    assert option.help.endswith(".")
    assert "\n" not in option.help
    assert option.parse(option.name, option.default) == option.default
    owners = (Settings, *option_classes())
    (owner,) = [cls for cls in owners if option.name in options_of(cls)]
    for found in (portrt.compile, owner):
        text = inspect.getdoc(found) or ""
        assert text.count(f"\n    {option.name}: {option.help}") == 1


def test_an_option_of_a_backend_has_no_name_of_a_shared_one() -> None:
    names = [name for cls in (Settings, *option_classes()) for name in options_of(cls)]
    assert sorted(set(names)) == sorted(names) == sorted(all_options())


def _names(*kinds: Any) -> set[str]:
    return {name for kind in kinds for name in kind.__annotations__}


def test_the_types_of_options_name_exactly_the_fields() -> None:
    shared = options_of(Settings)
    own = {*options_of(TensorRTOptions), *options_of(InductorOptions)}
    per_engine = {name for name, option in shared.items() if option.per_engine}
    torch_tensorrt = {*WITHOUT_MEANING, *PRECISION_SYNONYMS, USE_PYTHON_RUNTIME}
    assert _names(types.TensorRTKeywords) == set(options_of(TensorRTOptions))
    assert _names(types.InductorKeywords) == set(options_of(InductorOptions))
    assert _names(types.EngineKeywords) == {*own, *per_engine}
    assert _names(types.EngineEntry) == {*own, *per_engine, "backend"}
    assert _names(types.SettingsKeywords) == all_options().keys() - {"output_format"}
    assert _names(types.TorchTensorRTKeywords) == torch_tensorrt
    assert _names(types.CompileOptions) == {*_names(types.SettingsKeywords), *torch_tensorrt}
    refused = {"engines", "require_engines", "dryrun", "optimize_for", "optimize_budget"}
    assert _names(types.AddEngineOptions) == _names(types.CompileOptions) - refused


def test_options_of_a_backend_are_given_and_read_by_their_flat_names() -> None:
    settings = Settings(optimization_level=3, precision="float16")
    assert settings.backend_options == (TensorRTOptions(optimization_level=3),)
    assert settings.of(TensorRTOptions).optimization_level == settings.optimization_level == 3
    assert settings.of_backend("tensorrt_rtx") is settings.of(TensorRTOptions)
    assert settings.of_backend("onnxruntime") == BackendOptions()
    assert settings.precision == "fp16"
    assert dataclasses.replace(settings, optimization_level=None) == Settings(precision="fp16")
    assert pickle.loads(pickle.dumps(settings)) == copy.deepcopy(settings) == settings
    with pytest.raises(AttributeError, match="optimization_levels"):
        settings.optimization_levels  # noqa: B018


def test_settings_refuse_an_unknown_name() -> None:
    with pytest.raises(SettingsError, match="did you mean 'optimization_level'"):
        Settings(optimisation_level=3)  # type: ignore[call-arg]


@dataclasses.dataclass(frozen=True, kw_only=True)
class OtherOptions(BackendOptions):
    """Of a backend that another package brings."""

    workspace_size: bool = setting(False, help="Also TensorRT's name.", rebuilds=True)
    threads: int = setting(0, help="Threads.", rebuilds=False, parse=values.integer(0))


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    row = BackendInfo(name="other", runtime="", options=f"{__name__}:OtherOptions")
    monkeypatch.setitem(backends.BUILT_IN, "other", row)
    options_class.cache_clear()
    yield "other"
    options_class.cache_clear()


def test_a_flat_name_reaches_every_backend_that_has_it(other: str) -> None:
    settings = Settings.from_options({"workspace_size": 1, "threads": 2})
    assert settings.of_backend(other) == OtherOptions(workspace_size=1, threads=2)  # type: ignore[arg-type]
    assert settings.of_backend("tensorrt") == TensorRTOptions(workspace_size=1)
    with pytest.raises(SettingsError, match="threads is -1"):
        Settings.from_options({"threads": -1})


def test_options_of_one_engine_reach_its_backend_alone(
    other: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings_module, "_logged_once", set())
    with caplog.at_level(logging.INFO, logger="portrt"):
        entry = {"backend": other, "workspace_size": True, "plugins": "/nowhere"}
        found = Settings.from_options({"engines": [entry]})
    assert found.engines is not None
    own = found.engines[0].settings(found)
    assert own.of_backend(other) == OtherOptions(workspace_size=True)
    assert own.of_backend("tensorrt") == TensorRTOptions()
    assert "option plugins has no effect: it is not an option of other" in caplog.text


def test_options_that_cannot_be_imported_are_left_out(
    other: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = BackendInfo(name=other, runtime="", options="not_there:Options")
    monkeypatch.setitem(backends.BUILT_IN, other, row)
    assert Settings.from_options({"workspace_size": 1}).of_backend(other) == BackendOptions()
    assert "the options of the backend other are left out: not_there:Options" in caplog.text


def test_an_unknown_option_names_the_nearest() -> None:
    with pytest.raises(SettingsError, match="did you mean 'min_block_size'"):
        Settings.from_options({"min_blocksize": 3})


@pytest.mark.parametrize("name", WITHOUT_MEANING)
def test_torch_tensorrt_options_without_meaning_are_said_once(
    name: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings_module, "_logged_once", set())
    with caplog.at_level(logging.INFO, logger="portrt"):
        assert Settings.from_options({name: object()}) == Settings()
        Settings.from_options({name: object()})

    assert [record.getMessage().split()[1] for record in caplog.records] == [name]


@pytest.mark.parametrize(
    "options",
    [
        {"output_format": "torchscript"},
        {"fallback": "cpu"},
        {"min_block_size": 0},
        {"min_block_size": 2.0},
        {"min_block_size": True},
        {"workspace_size": -1},
        {"optimization_level": 6},
        {"build_timeout_s": 0},
        {"build_timeout_s": "soon"},
        {"passes": 3},
        {"plugins": [3]},
        {"plugins": 3},
        {"engines": 3},
        {"torch_executed_modules": 3},
        {"engines": []},
        {"torch_executed_ops": ["relu"]},
        {"torch_executed_ops": {3}},
        {"target_compute_capabilities": ["ampere"]},
        {"autocast_max_output_threshold": 0},
        {"numerics": "quick"},
        {"numerics": None},
        {"precision": "int8"},
        {"precision": torch.int8},
        {"autocast_excluded_modules": [3]},
        {"autocast_excluded_modules": [""]},
    ],
    ids=str,
)
def test_values_that_cannot_be_used_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_options(options)

    assert caught.value.expected
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (None, None),
        ("onnxruntime", ("onnxruntime",)),
        (["onnxruntime", "tensorrt_rtx"], ("onnxruntime", "tensorrt_rtx")),
        (("onnxruntime", "onnxruntime"), ("onnxruntime",)),
    ],
)
def test_engines_are_a_name_or_names(given: Any, wanted: Any) -> None:
    found = Settings.from_options({"engines": given}).engines
    assert (None if found is None else tuple(item.backend for item in found)) == wanted


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (torch.ops.aten.relu.default, "aten.relu.default"),
        (torch.ops.aten.relu, "aten.relu"),
        ("torch.ops.aten.relu.default", "aten.relu.default"),
        ("aten::relu", "aten.relu"),
        ("aten.relu", "aten.relu"),
    ],
    ids=str,
)
def test_operators_have_one_name_however_they_are_given(given: Any, wanted: str) -> None:
    assert operator_name(given) == wanted
    assert Settings.from_options({"torch_executed_ops": [given]}).torch_executed_ops == {wanted}
    assert Settings.from_options({"torch_executed_ops": given}).torch_executed_ops == {wanted}


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"precision": "fp16"}, "fp16"),
        ({"precision": torch.bfloat16}, "bf16"),
        ({"precision": torch.half}, "fp16"),
        ({"precision": torch.float32}, None),
        ({"precision": None}, None),
        ({"enabled_precisions": {torch.half}}, "fp16"),
        # A set's text has no order.
        pytest.param({"enabled_precisions": {torch.float32, torch.bfloat16}}, "bf16", id="of two"),
        ({"enabled_precisions": [torch.bfloat16, torch.float16]}, "fp16"),
        ({"enabled_precisions": torch.float32}, None),
        ({"enabled_precisions": {torch.int8}}, None),
        ({"enabled_precisions": {torch.half}, "precision": "bf16"}, "bf16"),
        ({"enabled_precisions": {torch.half}, "precision": None}, None),
        ({"enable_autocast": True}, "fp16"),
        ({"enable_autocast": True, "autocast_low_precision_type": torch.bfloat16}, "bf16"),
        ({"enable_autocast": False, "autocast_low_precision_type": torch.bfloat16}, None),
    ],
    ids=str,
)
def test_precision_as_torch_and_torch_tensorrt_write_it(options: Any, wanted: Any) -> None:
    assert Settings.from_options(options) == Settings(precision=wanted)


def test_enabled_precisions_says_what_it_comes_to(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="portrt"):
        Settings.from_options({"enabled_precisions": {torch.half, torch.int8}})
    assert "precision='fp16'" in caplog.text
    assert "torch.int8 has no effect" in caplog.text


@pytest.mark.parametrize("given", ["8.9", "sm_89", "sm89", 89, (8, 9), 8.9])
def test_compute_capabilities_are_taken_as_vendors_write_them(given: Any) -> None:
    assert compute_capability(given) == "8.9"


def test_a_compute_capability_of_two_digits_keeps_them() -> None:
    assert compute_capability("sm_120") == "12.0"
    assert Settings.from_options({"target_compute_capabilities": "12.0"}) == Settings(
        target_compute_capabilities=("12.0",)
    )


def test_engine_with_options_of_its_own() -> None:
    settings = Settings.from_options(
        {
            "engines": [
                "onnxruntime",
                {"backend": "tensorrt_rtx", "target_compute_capabilities": ["sm_75"]},
                {"backend": "tensorrt_rtx", "optimization_level": 3},
            ],
            "optimization_level": 1,
        }
    )
    assert settings.engines is not None
    own = [request.settings(settings) for request in settings.engines]
    assert [item.backend for item in settings.engines][1:] == ["tensorrt_rtx", "tensorrt_rtx"]
    assert [item.optimization_level for item in own] == [1, 1, 3]
    assert [item.target_compute_capabilities for item in own] == [(), ("7.5",), ()]


@pytest.mark.parametrize(
    "entry",
    [{"backend": "onnxruntime", "min_block_size": 2}, {"optimization_level": 1}, {"backend": 3}],
)
def test_engine_entry_that_cannot_be_read(entry: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match="engines has the entry"):
        Settings.from_options({"engines": [entry]})
