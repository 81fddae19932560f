"""Each parameter of Torch-TensorRT's `dynamo.compile`: its default is taken silently, and so on."""

from __future__ import annotations

import inspect
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch_tensorrt_page
from tiny import Mlp
from torch import nn
from torch.testing import assert_close

import portrt.torch_tensorrt as torch_tensorrt
from portrt.compiler.options.settings import Settings
from portrt.errors import BuildError, PartitionError, SettingsError
from portrt.runtime.calls import engine_calls
from portrt.torch_tensorrt.options import translated
from portrt.torch_tensorrt.parameters import NO_EFFECT, OLDER, PARAMETERS, REFUSED, WORKS

aten = torch.ops.aten
LINEAR = "torch.nn.modules.linear.Linear"
RELU = "aten.relu.default"
BF16 = torch_tensorrt.dtype.bf16

# Those of the release 2.14, in the order of its signature.
_NAMES = """
exported_program inputs arg_inputs kwarg_inputs device disable_tf32 assume_dynamic_shape_support
sparse_weights engine_capability num_avg_timing_iters workspace_size dla_sram_size
dla_local_dram_size dla_global_dram_size truncate_double use_complex_decomposition
require_full_compilation min_block_size torch_executed_ops torch_executed_modules
pass_through_build_failures max_aux_streams version_compatible optimization_level
use_python_runtime use_fast_partitioner enable_experimental_decompositions dryrun
hardware_compatible timing_cache_path lazy_engine_init cache_built_engines reuse_cached_engines
engine_cache_dir engine_cache_size custom_engine_cache use_fp32_acc
refit_identical_engine_weights strip_engine_weights immutable_weights enable_weight_streaming
tiling_optimization_level l2_limit_for_tiling offload_module_to_cpu use_distributed_mode_trace
enable_autocast autocast_low_precision_type autocast_excluded_nodes autocast_excluded_ops
autocast_max_output_threshold autocast_max_depth_of_reduction autocast_calibration_dataloader
cpu_memory_budget enable_resource_partitioning dynamically_allocate_resources
decompose_attention disabled_constant_fold_exclusions attn_bias_is_causal
fallback_data_dependent_ops
"""
NAMES = _NAMES.split()
INPUTS = ("exported_program", "inputs", "arg_inputs", "kwarg_inputs", "device")
OPTIONS = [name for name in NAMES if name not in INPUTS]
WITHOUT = [name for name in OPTIONS if PARAMETERS[name].state == NO_EFFECT]
WITH = [name for name in OPTIONS if PARAMETERS[name].state == WORKS]

# Of the builder, by the same names.
BUILDER: dict[str, Any] = {
    "disable_tf32": True,
    "sparse_weights": True,
    "num_avg_timing_iters": 2,
    "max_aux_streams": 2,
    "tiling_optimization_level": "full",
    "l2_limit_for_tiling": 1 << 20,
}
# Another value than the default -> the options of portrt.compile that it means.
MEANS: dict[str, tuple[Any, dict[str, Any]]] = {
    "assume_dynamic_shape_support": (True, {}),
    **{name: (value, {name: value}) for name, value in BUILDER.items()},
    "workspace_size": (1 << 30, {"workspace_size": 1 << 30}),
    "require_full_compilation": (True, {"require_full_compilation": True}),
    "min_block_size": (0, {"min_block_size": 1}),
    "torch_executed_ops": ({"aten.relu"}, {"torch_executed_ops": ["aten.relu"]}),
    "torch_executed_modules": (["a.b", nn.Linear], {"torch_executed_modules": ["a.b", LINEAR]}),
    "pass_through_build_failures": (True, {"require_engines": True}),
    "version_compatible": (True, {"version_compatible": True}),
    "optimization_level": (3, {"optimization_level": 3}),
    "use_python_runtime": (True, {"use_python_runtime": True}),
    "dryrun": ("report.json", {"dryrun": True, "report": "report.json"}),
    "hardware_compatible": (True, {"hardware_compatible": True}),
    "lazy_engine_init": (True, {}),
    "cache_built_engines": (True, {"cache_built_engines": True}),
    "reuse_cached_engines": (True, {"reuse_cached_engines": True}),
    "engine_cache_dir": ("folder", {"cache_dir": "folder"}),
    "strip_engine_weights": (True, {"strip_engine_weights": True}),
    "immutable_weights": (False, {"immutable_weights": False}),
    "enable_autocast": (True, {"enable_autocast": True}),
    "autocast_low_precision_type": (BF16, {"autocast_low_precision_type": BF16}),
    "autocast_excluded_ops": ([aten.relu.default], {"autocast_excluded_ops": [aten.relu.default]}),
    "autocast_max_output_threshold": (100.0, {"autocast_max_output_threshold": 100.0}),
    "attn_bias_is_causal": (False, {}),
}  # fmt: skip
# Another value than the default.
OTHER: dict[str, Any] = {
    "timing_cache_path": "timing.bin",
    "engine_cache_size": 1 << 20,
    "custom_engine_cache": object(),
    "autocast_excluded_nodes": {"^conv"},
    "autocast_max_depth_of_reduction": 64,
    "autocast_calibration_dataloader": [torch.ones(2)],
    "cpu_memory_budget": 1 << 30,
    "disabled_constant_fold_exclusions": {"rule"},
    "dla_sram_size": 1,
    "dla_local_dram_size": 1,
    "dla_global_dram_size": 1,
}


def other_value(name: str) -> Any:
    return OTHER[name] if name in OTHER else not PARAMETERS[name].default


def test_the_parameters_are_these() -> None:
    assert list(PARAMETERS) == NAMES
    assert len(NAMES) == 59
    assert set(WITH) == set(MEANS)
    shown = inspect.signature(torch_tensorrt.dynamo.compile).parameters
    assert set(shown) == {*NAMES, "kwargs"}
    assert [name for name in OPTIONS if PARAMETERS[name].state == REFUSED] == ["engine_capability"]


@pytest.mark.parametrize("name", OPTIONS)
def test_a_default_is_taken_silently(name: str) -> None:
    default = PARAMETERS[name].default
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for value in (default, None):
            found = Settings.from_options(translated({name: value}))
            if name not in ("cache_built_engines", "reuse_cached_engines", "engine_cache_dir"):
                ours = {"autocast_max_output_threshold": 512}.get(name)
                assert found == Settings(**({} if ours is None or value is None else {name: ours}))


@pytest.mark.parametrize("name", WITHOUT)
def test_a_value_without_effect_gives_one_warning(name: str) -> None:
    with pytest.warns(torch_tensorrt.NoEffectWarning) as record:
        assert translated({name: other_value(name)}) == {}
    assert len(record) == 1
    assert f"{name}=" in str(record[0].message)
    assert PARAMETERS[name].here in str(record[0].message)
    assert record[0].filename == __file__


@pytest.mark.parametrize("name", WITH)
def test_a_value_with_a_meaning_is_an_option(name: str) -> None:
    value, wanted = MEANS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = translated({name: value})
    assert found == wanted
    Settings.from_options(found)


def test_all_values_without_effect_give_one_warning_and_the_program_runs() -> None:
    model, x = Mlp().eval(), torch.randn(2, 8)
    given = {name: other_value(name) for name in WITHOUT}
    with pytest.warns(torch_tensorrt.NoEffectWarning) as record:
        made = torch_tensorrt.compile(
            model, "dynamo", x, engines="onnxruntime", min_block_size=1, **given
        )
    assert len(record) == 1
    assert all(f"{name}=" in str(record[0].message) for name in WITHOUT)
    assert_close(made(x), model(x))


@pytest.mark.parametrize("value", ["safety", torch_tensorrt.EngineCapability.DLA_STANDALONE])
def test_another_capability_is_refused(value: Any) -> None:
    with pytest.raises(SettingsError, match="safety or DLA engines"):
        torch_tensorrt.compile(Mlp().eval(), inputs=[torch.ones(1, 8)], engine_capability=value)
    for standard in ("standard", "STANDARD", torch_tensorrt.EngineCapability.STANDARD):
        assert translated({"engine_capability": standard}) == {}


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"truncate_long_and_double": False}, {}),
        ({"make_refittable": True}, {"immutable_weights": False}),
        ({"make_refitable": False}, {"immutable_weights": True}),
        ({"refit": True}, {"immutable_weights": False}),
        ({"debug": False, "calibrator": None, "use_explicit_typing": True}, {}),
        ({"strict": True}, {"strict": True}),
        ({"enabled_precisions": None}, {}),
        ({"precision": "bf16"}, {"precision": "bf16"}),  # portrt's own
        ({"torch_executed_ops": {}, "torch_executed_modules": []}, {}),
        ({"min_block_size": float("inf")}, {"min_block_size": float("inf")}),
        ({"dryrun": Path("a")}, {"dryrun": True, "report": Path("a")}),
    ],
)
def test_older_names_and_special_values(given: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert set(given) <= {*OLDER, *PARAMETERS, "precision"}
    assert translated(given) == wanted


@pytest.mark.parametrize("name", ["debug", "calibrator", "truncate_long_and_double"])
def test_older_names_without_effect_give_a_warning(name: str) -> None:
    with pytest.warns(torch_tensorrt.NoEffectWarning, match="option"):
        assert translated({name: True}) == {}


def test_an_unknown_option_is_an_error_with_the_nearest_of_both_packages() -> None:
    for wrong, near in {"disable_tf33": "disable_tf32", "engins": "engines"}.items():
        with pytest.raises(SettingsError, match=f"did you mean '{near}'"):
            torch_tensorrt.compile(Mlp().eval(), inputs=[torch.ones(1, 8)], **{wrong: 1})


def test_what_stays_in_pytorch() -> None:
    model, x = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)).eval(), torch.randn(2, 8)
    common: dict[str, Any] = {"inputs": [x], "engines": "onnxruntime", "min_block_size": 0}
    for given, left in (
        ({"torch_executed_ops": {"torch.ops.aten.relu.default"}}, {RELU}),
        ({"torch_executed_modules": [nn.Linear]}, {"aten.linear.default"}),
    ):
        found: list[Any] = []
        made = torch_tensorrt.compile(model, report=found.append, **{**common, **given})
        assert {item.operator for item in found[0].fallbacks} == left
        assert_close(made(x), model(x))
    with pytest.raises(PartitionError):
        torch_tensorrt.compile(
            model, torch_executed_ops=[aten.relu], require_full_compilation=True, **common
        )


def test_an_infinite_block_size_keeps_everything_in_pytorch() -> None:
    class Plain(nn.Module):  # without submodules and weights
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(x) * 2 + 1

    x = torch.randn(2, 8)
    given: dict[str, Any] = {"min_block_size": float("inf"), "torch_executed_modules": ["0"]}
    for model in (Plain().eval(), Mlp().eval()):
        made = torch_tensorrt.compile(model, inputs=x, **given)
        assert_close(made(x), model(x))
        program = torch_tensorrt.dynamo.compile(model, x, output_format="exported_program", **given)
        assert not any(engine_calls(program))
        torch.compiler.reset()
        for call in (
            torch_tensorrt.compile(model, "torch_compile", **given),
            torch.compile(model, backend="torch_tensorrt", options=given),
        ):
            with torch.no_grad():
                assert torch.equal(call(x), model(x))


def test_a_path_for_dryrun_gets_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "dryrun.json"
    torch_tensorrt.compile(Mlp().eval(), inputs=[torch.ones(2, 8)], dryrun=str(path))
    assert "Nothing was built" in capsys.readouterr().out
    assert '"nodes"' in path.read_text()


def test_a_build_failure_is_passed_through(tmp_path: Path) -> None:
    model, x = Mlp().eval(), torch.ones(2, 8)
    given: dict[str, Any] = {"inputs": [x], "engines": ("tensorrt_rtx", "onnxruntime")}
    given |= {"engine_cache_dir": tmp_path, "builder_python": "/nowhere/python"}
    assert_close(torch_tensorrt.compile(model, **given)(x), model(x))
    assert list(tmp_path.rglob("*"))  # the cache
    with pytest.raises(BuildError, match="cannot be started"):
        torch_tensorrt.compile(model, pass_through_build_failures=True, **given)


def test_the_page_has_this_table() -> None:
    page = torch_tensorrt_page.PAGE.read_text(encoding="utf-8")
    assert torch_tensorrt_page.updated(page) == page, "run python tests/torch_tensorrt_page.py"
