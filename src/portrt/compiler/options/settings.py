"""The options of `compile`, in one frozen place: defaults, checks, and what forces a rebuild."""

from __future__ import annotations

import dataclasses
import difflib
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from portrt.arguments import FALLBACKS, OUTPUT_FORMATS, one_of
from portrt.compiler.options import values
from portrt.compiler.options.precision import precision_name
from portrt.compiler.options.torch_tensorrt import WITHOUT_MEANING, with_precision
from portrt.compiler.options.values import operator_name as operator_name
from portrt.errors import SettingsError

logger = logging.getLogger(__name__)

CHECKS = ("error", "accept", "first-open", "off")


_said_once: set[str] = set()


# Options that one engine can have for itself.
PER_ENGINE = (
    "precision",
    "autocast_excluded_modules",
    "autocast_excluded_ops",
    "autocast_max_output_threshold",
    "optimization_level",
    "workspace_size",
    "version_compatible",
    "exclude_lean_runtime",
    "strip_engine_weights",
    "hardware_compatible",
    "target_compute_capabilities",
    "builder_python",
    "build_timeout_s",
)


@dataclass(frozen=True)
class EngineRequest:
    """One engine to build: a backend, and the options in which it differs from the others.

    Attributes:
        backend: Its name.
        options: (name, value) of fields of `Settings` that `PER_ENGINE` lists.
    """

    backend: str
    options: tuple[tuple[str, Any], ...] = ()

    def settings(self, common: Settings) -> Settings:
        """The settings of this engine."""
        return dataclasses.replace(common, **dict(self.options))


def setting(default: Any, *, rebuilds: bool) -> Any:
    """A field of `Settings`; `rebuilds` says whether another value gives another engine."""
    return dataclasses.field(default=default, metadata={"rebuilds": rebuilds})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What `compile` was asked for.

    Attributes:
        engines: Engines to build, in order of preference: names of backends, or mappings such as
            {"backend": "tensorrt_rtx", "target_compute_capabilities": ["7.5"]} with the options of
            this engine alone. None means every backend that can build on this machine.
        require_engines: Refuse a model of which one of the `engines` cannot be built, instead of
            leaving that engine out with its reason in the log.
        output_format: "module" (a callable `torch.nn.Module`) or "exported_program".
        min_block_size: Smallest number of operators in a block; smaller ones stay in PyTorch,
            unless the block is the whole model.
        torch_executed_ops: Operators that stay in PyTorch, as `torch.ops` objects or as names such
            as "aten.relu" or "aten.relu.default".
        torch_executed_modules: Modules that stay in PyTorch, with all that is in them: paths such
            as "layers.0.mlp" or full names of classes, with the wildcards of `fnmatch`.
        translations: Operator -> its translation to ONNX, as `torch.onnx.export` takes it in
            `custom_translation_table`; operators as in torch_executed_ops.
        passes: Functions that change the lowered graph, a `torch.fx.GraphModule`, in place; called
            in this order, after portrt's own passes. The model must compute the same afterwards.
        plugins: Shared libraries with TensorRT plugins that the builder loads.
        precision: "fp16" or "bf16": engines compute matrix products, convolutions and attention of
            a float32 model in this dtype, and what follows them element by element; softmax, norms,
            sums and the like stay in float32. None keeps the model's dtypes.
        autocast_excluded_modules: Modules that stay in float32 under `precision`: paths such as
            "layers.0.mlp" or full names of classes, with the wildcards of `fnmatch`.
        autocast_excluded_ops: Operators that do, named as in torch_executed_ops.
        autocast_max_output_threshold: With "fp16", what is larger than this on the sample inputs
            stays in float32 as well; float16 ends at 65504.
        require_full_compilation: Refuse a model of which a node would stay in PyTorch.
        report: Where to tell what is in engines and what is not, and why: True prints it, a path is
            written to as JSON, a function is called with the `CompileReport`. It is stored with the
            program in any case, and `portrt inspect --report` shows it.
        dryrun: Print what would be compiled and build nothing.
        fallback: "eager" (the source runs in PyTorch where no engine fits) or "error"; None leaves
            it to the place where the program runs.
        optimization_level: TensorRT's builder level, 0 to 5; None is the builder's default.
        workspace_size: Scratch memory of a TensorRT engine in bytes; 0 is the builder's default.
        version_compatible: Build a TensorRT engine that later versions can run.
        strip_engine_weights: Leave the weights out of a TensorRT engine, and give them to it from
            the file's one copy where it is opened. Needs a builder of TensorRT 10 or later.
        exclude_lean_runtime: Leave the small TensorRT out of a version-compatible engine (30 MB or
            more); what runs the engine then needs a lean runtime of the release that built it.
        hardware_compatible: Build a TensorRT engine for other GPU architectures than this one.
        target_compute_capabilities: GPUs that a TensorRT-RTX engine must run on, such as "8.9" or
            "sm_89"; empty means the builder's portable default (8.0 and newer).
        builder_python: Python interpreter that runs the engine builder, for a TensorRT that is
            installed elsewhere; None is this one.
        build_timeout_s: Seconds after which an engine build is given up.
        check: What happens when an engine that can run here gives other numbers than PyTorch on the
            sample inputs: "error", "accept" (log it, keep the engine), "off" (do not compare), or
            "first-open": "error", and what cannot run here is compared where it is opened first.
        strict: Passed to `torch.export.export`.
        cache_dir: Folder of the engine cache; "" or "off" switches it off, and None leaves it to
            the environment variable PORTRT_CACHE_DIR, or else is the user's cache folder.
        cache_built_engines: Keep what is built in the cache.
        reuse_cached_engines: Take from the cache what was built before.
    """

    # What only decides which operators are in a block is not marked: the key has the block itself.
    engines: tuple[EngineRequest, ...] | None = setting(None, rebuilds=False)
    require_engines: bool = setting(False, rebuilds=False)
    output_format: str = setting("module", rebuilds=False)
    min_block_size: int = setting(5, rebuilds=False)
    torch_executed_ops: frozenset[str] = setting(frozenset(), rebuilds=False)
    torch_executed_modules: frozenset[str] = setting(frozenset(), rebuilds=False)
    translations: tuple[tuple[str, Callable[..., Any]], ...] = setting((), rebuilds=True)
    passes: tuple[Callable[..., Any], ...] = setting((), rebuilds=True)
    plugins: tuple[str, ...] = setting((), rebuilds=True)
    precision: str | None = setting(None, rebuilds=True)
    autocast_excluded_modules: frozenset[str] = setting(frozenset(), rebuilds=True)
    autocast_excluded_ops: frozenset[str] = setting(frozenset(), rebuilds=True)
    autocast_max_output_threshold: float = setting(16384.0, rebuilds=True)
    require_full_compilation: bool = setting(False, rebuilds=False)
    report: Any = setting(None, rebuilds=False)  # noqa: RUF009  (a function cannot change)
    dryrun: bool = setting(False, rebuilds=False)
    fallback: str | None = setting(None, rebuilds=False)
    optimization_level: int | None = setting(None, rebuilds=True)
    workspace_size: int = setting(0, rebuilds=True)
    version_compatible: bool = setting(False, rebuilds=True)
    exclude_lean_runtime: bool = setting(False, rebuilds=True)
    strip_engine_weights: bool = setting(False, rebuilds=True)
    hardware_compatible: bool = setting(False, rebuilds=True)
    target_compute_capabilities: tuple[str, ...] = setting((), rebuilds=True)
    builder_python: str | None = setting(None, rebuilds=True)
    build_timeout_s: float = setting(3600.0, rebuilds=False)
    check: str = setting("error", rebuilds=False)
    strict: bool = setting(False, rebuilds=False)
    cache_dir: str | None = setting(None, rebuilds=False)
    cache_built_engines: bool = setting(True, rebuilds=False)
    reuse_cached_engines: bool = setting(True, rebuilds=False)

    def __post_init__(self) -> None:
        one_of("output_format", self.output_format, OUTPUT_FORMATS)
        one_of("check", self.check, CHECKS)
        if self.fallback is not None:
            one_of("fallback", self.fallback, FALLBACKS)
        _check_integer("min_block_size", self.min_block_size, 1, None)
        _check_integer("workspace_size", self.workspace_size, 0, None)
        if self.optimization_level is not None:
            _check_integer("optimization_level", self.optimization_level, 0, 5)
        if not self.autocast_max_output_threshold > 0:
            raise SettingsError(
                f"autocast_max_output_threshold is {self.autocast_max_output_threshold!r}",
                "a number above 0",
                "leave it out, or give the largest magnitude that may be computed in float16",
            )
        if not self.build_timeout_s > 0:
            raise SettingsError(
                f"build_timeout_s is {self.build_timeout_s!r}",
                "a number of seconds above 0",
                "give a larger build_timeout_s",
            )

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Settings:
        """Settings from the keyword arguments of a `compile` call.

        Raises:
            SettingsError: An option is unknown (the nearest known one is named) or its value is
                not usable.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        options = with_precision(options)
        values: dict[str, Any] = {}
        for name, value in options.items():
            if name in known:
                values[name] = _NORMAL.get(name, _same)(value)
            elif name in WITHOUT_MEANING:
                _say_once(name)
            else:
                near = difflib.get_close_matches(name, [*known, *WITHOUT_MEANING], n=1)
                raise SettingsError(
                    f"compile() has no option {name!r}",
                    f"one of {', '.join(sorted(known))}",
                    f"did you mean {near[0]!r}?" if near else "leave the option out",
                )
        return cls(**values)


def _same(value: Any) -> Any:
    return value


def _engines(value: Any) -> tuple[EngineRequest, ...] | None:
    if value is None:
        return None
    items = [value] if isinstance(value, (str, Mapping)) else list(value)
    if not items:
        raise SettingsError(
            "engines is empty",
            "at least one engine name, or None for every backend that can build here",
            "leave the option out, or name an engine such as 'onnxruntime'",
        )
    return tuple(dict.fromkeys(_request(item) for item in items))


def _request(item: Any) -> EngineRequest:
    if isinstance(item, EngineRequest):
        return item
    given = {"backend": item} if isinstance(item, str) else dict(item)
    backend = given.pop("backend", None)
    unknown = [name for name in given if name not in PER_ENGINE]
    if not isinstance(backend, str) or unknown:
        raise SettingsError(
            f"engines has the entry {item!r}",
            "a backend's name, or a mapping with 'backend' and any of " + ", ".join(PER_ENGINE),
            f"leave out {', '.join(map(str, unknown))}" if unknown else "name the backend",
        )
    options = {name: _NORMAL.get(name, _same)(option) for name, option in given.items()}
    return EngineRequest(backend, tuple(sorted(options.items())))


def _operators(value: Any) -> frozenset[str]:
    if not isinstance(value, (set, frozenset, list, tuple)):
        value = [value]
    return frozenset(operator_name(op) for op in value)


def _capabilities(value: Any) -> tuple[str, ...]:
    return tuple(
        compute_capability(item) for item in ([value] if isinstance(value, str) else value)
    )


def compute_capability(text: Any) -> str:
    """ "8.9" for "8.9", "sm_89", "sm89", 89 or (8, 9).

    Raises:
        SettingsError: It is none of these.
    """
    if isinstance(text, (tuple, list)) and len(text) == 2:
        return f"{int(text[0])}.{int(text[1])}"
    found = re.fullmatch(r"(?:sm_?)?(\d+)\.?(\d)", str(text))
    if not found:
        raise SettingsError(
            f"{text!r} is not a compute capability",
            "a value such as '8.9' or 'sm_89'",
            "see NVIDIA's list of compute capabilities for your GPU",
        )
    return f"{found[1]}.{found[2]}"


_NORMAL: Mapping[str, Callable[[Any], Any]] = {
    "cache_dir": values.folder,
    "engines": _engines,
    "torch_executed_ops": _operators,
    "torch_executed_modules": values.names,
    "translations": values.translations,
    "passes": values.passes,
    "plugins": values.plugins,
    "report": values.report_target,
    "precision": precision_name,
    "autocast_excluded_modules": values.names,
    "autocast_excluded_ops": _operators,
    "target_compute_capabilities": _capabilities,
}


def _check_integer(name: str, value: Any, least: int, most: int | None) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        fits = False
    else:
        fits = most is None or value <= most
    if not fits:
        bounds = f"from {least}" + ("" if most is None else f" to {most}")
        raise SettingsError(
            f"{name} is {value!r}", f"a whole number {bounds}", f"choose a {name} in that range"
        )


def _say_once(name: str) -> None:
    if name not in _said_once:
        _said_once.add(name)
        logger.info("option %s has no effect: %s", name, WITHOUT_MEANING[name])
