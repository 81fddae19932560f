"""Keys: equal in every process, and another one for each thing that changes what is built."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch
from torch import nn

from portrt.cache.key import Key, differing_parts, digest_of
from portrt.cache.store import Cache
from portrt.compiler.backends import registry
from portrt.compiler.backends.base import BuildInput
from portrt.compiler.building import keys
from portrt.compiler.building.fingerprint import (
    UnknownValueError,
    graph,
    has_foreign_operators,
    tensor,
)
from portrt.compiler.building.tasks import EngineTask
from portrt.compiler.capture import capture
from portrt.compiler.lower import lower
from portrt.compiler.options.backend_options import options_class
from portrt.compiler.options.fields import BackendOptions, Option, options_of
from portrt.compiler.options.settings import EngineRequest, Settings, all_options
from portrt.compiler.partition import partition
from portrt.compiler.plan import Block
from portrt.format.dimensions import Dimension
from portrt.verdict import YES
from portrt.weights import image_from_tensors


def material(model: nn.Module | None = None, shape: tuple[int, ...] = (3, 8)) -> BuildInput:
    captured = capture(tiny.model() if model is None else model, [torch.zeros(shape)])
    plan = partition(lower(captured), Settings(min_block_size=1), lambda _: YES)
    return BuildInput(plan.blocks[0], plan.tensors, image_from_tensors(plan.tensors), None)  # type: ignore[arg-type]


def engine_key(
    made: BuildInput, settings: Settings | None = None, name: str = "onnxruntime"
) -> Key:
    return keys.engine_key(registry.builder(name), made, settings or Settings())


def changed(made: BuildInput, **fields: Any) -> BuildInput:
    block: Block = dataclasses.replace(made.block, **fields)
    return BuildInput(block, made.tensors, made.image, made.convert)


BASE = material()
BASE_KEY = engine_key(BASE)

OTHER: dict[str, Any] = {
    "max_autotune": True,
    "freezing": True,
    "require_engines": True,
    "engines": (EngineRequest("onnxruntime"),),
    "output_format": "exported_program",
    "min_block_size": 6,
    "torch_executed_ops": frozenset({"aten.relu"}),
    "torch_executed_modules": frozenset({"first"}),
    "immutable_weights": False,
    "translations": {"aten.tanh": print},
    "passes": (print,),
    "plugins": (__file__,),
    "precision": "fp16",
    "autocast_excluded_modules": frozenset({"first"}),
    "autocast_excluded_ops": frozenset({"aten.linear"}),
    "autocast_max_output_threshold": 512.0,
    "numerics": "fast",
    "require_full_compilation": True,
    "report": True,
    "dryrun": True,
    "fallback": "error",
    "optimization_level": 2,
    "workspace_size": 1 << 20,
    "disable_tf32": True,
    "sparse_weights": True,
    "max_aux_streams": 0,
    "num_avg_timing_iters": 2,
    "tiling_optimization_level": "fast",
    "l2_limit_for_tiling": 1 << 20,
    "version_compatible": True,
    "hardware_compatible": True,
    "exclude_lean_runtime": True,
    "strip_engine_weights": True,
    "target_compute_capabilities": ("8.9",),
    "builder_python": "",  # an interpreter, see below
    "build_timeout_s": 7.0,
    "check": "off",
    "check_budget": 0.5,
    "optimize_for": "latency",
    "optimize_budget": 9.0,
    "strict": True,
    "cache_dir": "elsewhere",
    "cache_built_engines": False,
    "reuse_cached_engines": False,
}


def test_the_table_has_another_value_of_every_option() -> None:
    assert OTHER.keys() == all_options().keys()
    for name, option in all_options().items():
        assert name == "builder_python" or option.parse(name, OTHER[name]) != option.default, name


def with_other(name: str, tmp_path: Path) -> Settings:
    value = OTHER[name]
    if name == "builder_python":
        value = str(tmp_path / "python")
        Path(value).write_text("#!/bin/sh\necho \"['tensorrt 10.0']\"\n")
        Path(value).chmod(0o755)
    return Settings.from_options({name: value})


@pytest.mark.parametrize("backend", ["onnxruntime", "inductor", "tensorrt", "tensorrt_rtx"])
@pytest.mark.parametrize("option", all_options().values(), ids=lambda option: option.name)
def test_an_option_changes_the_key_of_an_engine_exactly_when_it_is_marked(
    option: Option, backend: str, tmp_path: Path
) -> None:
    own = {*options_of(Settings), *options_of(options_class(backend) or BackendOptions)}
    counts = option.rebuilds and option.name in own
    base = engine_key(BASE, name=backend)
    other = engine_key(BASE, with_other(option.name, tmp_path), backend)
    assert (other.digest != base.digest) is counts
    assert (f"setting {option.name}" in differing_parts(base.parts, other.parts)) is counts


@pytest.mark.parametrize("backend", ["onnxruntime", "tensorrt_rtx"])
@pytest.mark.parametrize("option", all_options().values(), ids=lambda option: option.name)
def test_a_program_key_has_every_option_that_can_change_the_program(
    option: Option, backend: str, tmp_path: Path
) -> None:
    neutral = {"cache_built_engines", "cache_dir", "dryrun", "output_format"}
    neutral |= {"report", "reuse_cached_engines"}
    own = options_of(options_class(backend) or BackendOptions)
    neutral |= all_options().keys() - options_of(Settings).keys() - own.keys()
    captured = capture(tiny.model(), [torch.zeros(3, 8)])

    def key(settings: Settings) -> str:
        tasks = [EngineTask(registry.builder(backend), settings)]
        try:
            return keys.program_key(captured, settings, tasks, {}).digest
        except UnknownValueError:
            return ""  # it has none

    other = with_other(option.name, tmp_path)
    assert (key(other) == key(Settings())) is (option.name in neutral)


def test_another_content_of_a_plugin_changes_both_keys(tmp_path: Path) -> None:
    plugin = tmp_path / "libplugin.so"
    captured = capture(tiny.model(), [torch.zeros(3, 8)])
    found = []
    for content in (b"one", b"two"):
        plugin.write_bytes(content)
        settings = Settings.from_options({"plugins": plugin})
        task = EngineTask(registry.builder("tensorrt_rtx"), settings)
        engine = engine_key(BASE, settings, "tensorrt_rtx")
        found.append((engine.digest, keys.program_key(captured, settings, [task], {}).digest))
    assert not set(found[0]) & set(found[1])


class Activation(nn.Module):
    """One operator whose argument decides what it computes."""

    def __init__(self, slope: float = 0.1, weight: float = 1.0, dtype: Any = torch.float32) -> None:
        super().__init__()
        self.slope = slope
        self.weight = nn.Parameter(torch.full((2, 4), weight, dtype=dtype))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.leaky_relu(x, self.slope) @ self.weight.to(x.dtype).flatten().view(
            8, 1
        )


@pytest.mark.parametrize(
    ("part", "one", "other"),
    [
        ("graph", Activation(0.1), Activation(0.2)),
        ("weights", Activation(), Activation(weight=2.0)),
        ("weights", Activation(dtype=torch.float16), Activation(dtype=torch.bfloat16)),
        ("graph", Activation(), tiny.model()),
    ],
    ids=["operator argument", "weight bytes", "weight dtype", "operators"],
)
def test_each_part_of_a_block_is_seen(part: str, one: nn.Module, other: nn.Module) -> None:
    keys = [engine_key(material(model)) for model in (one, other)]
    assert part in differing_parts(keys[0].parts, keys[1].parts)
    assert keys[0].digest != keys[1].digest


def test_operator_arguments_change_the_graph_and_nothing_else() -> None:
    keys = [engine_key(material(Activation(slope))) for slope in (0.1, 0.2)]
    assert differing_parts(keys[0].parts, keys[1].parts) == ["graph"]


def test_which_module_a_node_is_in_counts_where_an_option_names_modules() -> None:
    class Renamed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            made = tiny.model()
            self.one, self.other = made.first, made.second

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.other(torch.relu(self.one(x)))

    def parts_of(model: nn.Module, **options: Any) -> Any:
        return engine_key(material(model), Settings(**options)).parts

    for options, differs in (({}, False), ({"autocast_excluded_modules": {"first"}}, True)):
        found = [parts_of(model, **options) for model in (tiny.model(), Renamed())]
        assert ("modules" in differing_parts(*found)) is differs


def test_what_the_sample_leaves_in_float32_changes_the_key() -> None:
    kept = BuildInput(BASE.block, BASE.tensors, BASE.image, BASE.convert, frozenset({"relu"}))
    assert differing_parts(BASE_KEY.parts, engine_key(kept).parts) == ["float32 nodes"]


def test_shapes_change_the_key() -> None:
    wide = engine_key(material(shape=(4, 8)))
    assert differing_parts(BASE_KEY.parts, wide.parts) == ["shapes"]


@pytest.mark.parametrize("bound", ["min", "opt", "max"])
def test_each_bound_of_a_profile_changes_the_key(bound: str) -> None:
    dimension = Dimension(1, 4, 32, "s0")
    other = dataclasses.replace(dimension, **{bound: getattr(dimension, bound) + 1})
    keys = []
    for size in (dimension, other):
        spec = dataclasses.replace(BASE.block.inputs[0], shape=(size, 8))
        keys.append(engine_key(changed(BASE, inputs=(spec,))))
    assert differing_parts(keys[0].parts, keys[1].parts) == ["shapes"]


def test_names_and_places_of_weights_change_the_key() -> None:
    other = image_from_tensors({"another": torch.zeros(64), **BASE.tensors})
    moved = BuildInput(BASE.block, BASE.tensors, other, BASE.convert)
    assert differing_parts(BASE_KEY.parts, engine_key(moved).parts) == ["weights"]


def test_backends_have_keys_of_their_own() -> None:
    other = engine_key(BASE, name="tensorrt_rtx")
    assert "backend" in differing_parts(BASE_KEY.parts, other.parts)


def test_the_library_version_changes_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "__version__", "99.0")
    assert differing_parts(BASE_KEY.parts, engine_key(BASE).parts) == ["library"]


@pytest.mark.parametrize("library", ["onnx", "onnx-ir", "onnxscript", "portrt"])
def test_the_converters_version_changes_the_key(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = keys.metadata.version
    fake = SimpleNamespace(version=lambda name: "99" if name == library else real(name))
    monkeypatch.setattr(keys, "metadata", fake)
    keys._versions.cache_clear()
    try:
        assert differing_parts(BASE_KEY.parts, engine_key(BASE).parts) == ["converter"]
    finally:
        keys._versions.cache_clear()


@pytest.mark.parametrize(("call", "value"), [("system", "Plan9"), ("machine", "vax")])
def test_the_target_changes_the_key(call: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys.platform, call, lambda: value)
    assert differing_parts(BASE_KEY.parts, engine_key(BASE).parts) == ["target"]


def test_the_gpus_here_are_part_of_a_tensorrt_target(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (8, 9 - index))
    assert keys.target("tensorrt_rtx")["gpus"] == [(8, 8), (8, 9)]
    assert "gpus" not in keys.target("onnxruntime")


SCRIPT = """
import hashlib, json, sys
sys.path.insert(0, sys.argv[1])
import warnings; warnings.simplefilter("ignore")
from test_cache_key import engine_key, material, BASE
from portrt.compiler.package.assemble import archive_of
source = hashlib.sha256(archive_of(BASE.block.program)).hexdigest()
print(json.dumps([dict(engine_key(BASE).parts), source]))
"""


def test_two_processes_give_equal_keys_and_equal_source_archives() -> None:
    found = []
    for seed in ("1", "2"):
        path = str(Path(__file__).parents[1])
        done = tiny.python(SCRIPT, str(Path(__file__).parent), PYTHONHASHSEED=seed, PYTHONPATH=path)
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout))
    assert found[0] == found[1]
    assert found[0][0] == dict(BASE_KEY.parts)


def test_names_of_nodes_do_not_count() -> None:
    module = BASE.block.program.graph_module
    before = graph(module)
    other = torch.fx.GraphModule(module, module.graph)
    for index, node in enumerate(other.graph.nodes):
        node.name = f"renamed_{index}"
    assert graph(other) == before


@pytest.mark.parametrize(
    ("one", "other"), [(1, 1.0), (1, True), ("1", 1), (None, "None"), (0.0, -0.0)]
)
def test_arguments_of_different_types_stay_apart(one: Any, other: Any) -> None:
    described = []
    for value in (one, other):
        made = torch.fx.Graph()
        x = made.placeholder("x")
        made.output(made.call_function(torch.ops.aten.add.Tensor, (x, value)))
        described.append(digest_of(graph(torch.fx.GraphModule(nn.Module(), made))))
    assert described[0] != described[1]


@pytest.mark.parametrize(
    "value",
    [torch.zeros(2, device="meta"), torch.eye(2).to_sparse(), 3],
    ids=["meta", "sparse", "no tensor"],
)
def test_what_has_no_bytes_of_its_own_is_not_described(value: Any) -> None:
    with pytest.raises(UnknownValueError):
        tensor(value)


def test_a_tensor_is_its_bytes_in_row_major_order() -> None:
    x = torch.arange(6.0).view(2, 3)
    assert tensor(x)[-1] == tensor(x.t().contiguous().t())[-1]
    assert tensor(x) != tensor(x.t().contiguous().t())  # strides count, too
    assert tensor(torch.tensor(1.0)) != tensor(torch.tensor([1.0]))
    assert tensor(torch.empty(0))[-1] == tensor(torch.empty(0, 3))[-1]


def test_operators_of_others_are_found() -> None:
    made = torch.fx.Graph()
    x = made.placeholder("x")
    made.output(made.call_function(torch.ops.portrt.execute_engine.default, ([x], [], "")))
    assert has_foreign_operators(torch.fx.GraphModule(nn.Module(), made))
    assert not has_foreign_operators(BASE.block.program.graph_module)


def test_a_miss_is_explained(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = Cache(tmp_path, 1 << 20)
    cache.put(BASE_KEY, {}, lambda path: path.write_bytes(b"x"))
    with caplog.at_level(logging.DEBUG, logger="portrt"):
        cache.explain_miss(engine_key(material(Activation()), Settings(precision="fp16")))
    text = caplog.text
    assert "the nearest differs in graph, setting precision, shapes, weights" in text
    for name in BASE_KEY.parts:
        assert f": {name} is " in text
