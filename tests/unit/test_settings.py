"""`Settings`: defaults, names and values that are accepted, and errors that help."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import pytest
import torch

from portrt.compiler.options import settings
from portrt.compiler.options.settings import Settings, compute_capability, operator_name
from portrt.compiler.options.torch_tensorrt import WITHOUT_MEANING
from portrt.errors import SettingsError


def test_no_option_gives_the_defaults() -> None:
    assert Settings.from_options({}) == Settings()


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().min_block_size = 3  # type: ignore[misc]


@pytest.mark.parametrize("field", dataclasses.fields(Settings), ids=lambda field: str(field.name))
def test_every_field_says_whether_it_forces_a_rebuild(field: Any) -> None:
    assert isinstance(field.metadata["rebuilds"], bool)
    assert f"{field.name}:" in str(Settings.__doc__)


def test_an_unknown_option_names_the_nearest() -> None:
    with pytest.raises(SettingsError, match="did you mean 'min_block_size'"):
        Settings.from_options({"min_blocksize": 3})


@pytest.mark.parametrize("name", WITHOUT_MEANING)
def test_torch_tensorrt_options_without_meaning_are_said_once(
    name: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "_said_once", set())
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
        {"engines": []},
        {"torch_executed_ops": ["relu"]},
        {"torch_executed_ops": {3}},
        {"target_compute_capabilities": ["ampere"]},
        {"autocast_max_output_threshold": 0},
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
