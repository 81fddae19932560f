"""Settings: the options of `compile` shared by all engines, and access to those of backends."""

from __future__ import annotations

import dataclasses
import difflib
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from portrt.arguments import FALLBACKS, GOALS, OUTPUT_FORMATS
from portrt.compiler.options import values
from portrt.compiler.options.backend_options import option_classes, options_class, route
from portrt.compiler.options.fields import (
    BackendOptions,
    Option,
    documented,
    options_of,
    setting,
)
from portrt.compiler.options.precision import precision_option
from portrt.compiler.options.torch_tensorrt import (
    USE_PYTHON_RUNTIME,
    WITHOUT_MEANING,
    runtime_of,
    with_precision,
)
from portrt.errors import SettingsError

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from portrt.compiler.options.compile_options import SettingsKeywords

logger = logging.getLogger(__name__)

NUMERICS = ("exact", "fast")
CHECKS = ("fallback", "error", "accept", "first-open", "off")

_Options = TypeVar("_Options", bound=BackendOptions)

_logged_once: set[str] = set()


@dataclass(frozen=True)
class EngineRequest:
    """One engine to build: a backend, and the options set for this engine only.

    Attributes:
        backend: Name of the backend.
        options: (name, value) of the options set for this engine.
    """

    backend: str
    options: tuple[tuple[str, Any], ...] = ()

    def settings(self, common: Settings) -> Settings:
        """Return the settings of this engine."""
        cls = options_class(self.backend)
        names = {} if cls is None else options_of(cls)
        shared = {name: value for name, value in self.options if name not in names}
        own = {name: value for name, value in self.options if name in names}
        changed = common.backend_options
        if cls is not None and own:
            changed = (*changed, dataclasses.replace(common.of(cls), **own))
        return dataclasses.replace(common, backend_options=changed, **shared)


def _engine_requests(name: str, value: Any) -> tuple[EngineRequest, ...] | None:
    if value is None:
        return None
    several = isinstance(value, Iterable) and not isinstance(value, (str, Mapping))
    items = list(value) if several else [value]
    if not items:
        raise SettingsError(
            f"{name} is empty",
            "at least one engine name, or None for every backend that can build here",
            "omit the option, or name an engine such as 'onnxruntime'",
        )
    return tuple(dict.fromkeys(_engine_request(name, item) for item in items))


def _engine_request(name: str, item: Any) -> EngineRequest:
    if isinstance(item, EngineRequest):
        return item
    given = dict(item) if isinstance(item, Mapping) else {"backend": item}
    backend = given.pop("backend", None)
    own = options_class(backend) if isinstance(backend, str) else None
    allowed = {key: option for key, option in options_of(Settings).items() if option.per_engine}
    allowed |= {} if own is None else options_of(own)
    others = {key for cls in option_classes() for key in options_of(cls)} - allowed.keys()
    unknown = [key for key in given if key not in allowed and key not in others]
    if not isinstance(backend, str) or unknown:
        raise SettingsError(
            f"{name} has the entry {item!r}",
            f"a backend's name, or a mapping with 'backend' and any of {', '.join(allowed)}",
            f"leave out {', '.join(map(str, unknown))}" if unknown else "name the backend",
        )
    for key in given.keys() & others:
        _log_once(key, f"it is not an option of {backend}")
    parsed = {key: allowed[key].parse(key, given[key]) for key in given if key in allowed}
    return EngineRequest(backend, tuple(sorted(parsed.items())))


@documented
@dataclass(frozen=True, kw_only=True, init=False)
class Settings:
    """Options of a `compile` call.

    Options of single backends, such as `optimization_level`, are given by name as well. They are
    fields of separate classes, such as `TensorRTOptions`, and attributes of this one.
    docs/options.md lists all options.

    Attributes:
        backend_options: Options of backends that differ from the defaults.
    """

    # Options that only affect which operators are in a block are not marked with `rebuilds`: the
    # cache key contains the block itself.
    engines: tuple[EngineRequest, ...] | None = setting(
        None,
        help="Backends to build for, best first: names, or mappings with options of one engine.",
        unset="every backend that can build here",
        rebuilds=False,
        parse=_engine_requests,
    )
    require_engines: bool = setting(
        False,
        help="Raise if one of `engines` cannot be built, instead of leaving it out with a warning.",
        rebuilds=False,
    )
    output_format: str = setting(
        "module",
        help='"module" (a callable `torch.nn.Module`) or "exported_program".',
        rebuilds=False,
        parse=values.one_of(OUTPUT_FORMATS),
    )
    min_block_size: int = setting(
        5,
        help="Smallest number of operators in a block; a smaller part of a model stays in PyTorch.",
        rebuilds=False,
        parse=values.integer(1),
    )
    torch_executed_ops: frozenset[str] = setting(
        frozenset(),
        help='Operators that stay in PyTorch, such as `torch.ops.aten.relu` or "aten.relu".',
        rebuilds=False,
        parse=values.operators,
    )
    torch_executed_modules: frozenset[str] = setting(
        frozenset(),
        help="Modules that stay in PyTorch: paths or full class names, with fnmatch wildcards.",
        rebuilds=False,
        parse=values.modules,
    )
    immutable_weights: bool = setting(
        True,
        help="False keeps weights out of engines, as parameters that may change in place.",
        rebuilds=False,
    )
    translations: tuple[tuple[str, Callable[..., Any]], ...] = setting(
        (),
        help="Operator -> its ONNX translation, as torch.onnx.export's `custom_translation_table`.",
        rebuilds=True,
        parse=values.translations,
    )
    passes: tuple[Callable[..., Any], ...] = setting(
        (),
        help="Functions that change the lowered GraphModule in place, called in this order.",
        rebuilds=True,
        parse=values.functions,
    )
    precision: str | None = setting(
        None,
        help='Dtype of products, convolutions and attention in a float32 model: "fp16" or "bf16".',
        unset="the model's dtypes",
        rebuilds=True,
        parse=precision_option,
        per_engine=True,
    )
    autocast_excluded_modules: frozenset[str] = setting(
        frozenset(),
        help="Modules that stay in float32 under `precision`, as in `torch_executed_modules`.",
        rebuilds=True,
        parse=values.modules,
        per_engine=True,
    )
    autocast_excluded_ops: frozenset[str] = setting(
        frozenset(),
        help="Operators that stay in float32 under `precision`, as in `torch_executed_ops`.",
        rebuilds=True,
        parse=values.operators,
        per_engine=True,
    )
    autocast_max_output_threshold: float = setting(
        16384.0,
        help='With "fp16", operators with larger values on the sample inputs stay in float32.',
        rebuilds=True,
        parse=values.positive(
            "a number",
            "leave it out, or give the largest magnitude that may be computed in float16",
        ),
        per_engine=True,
    )
    numerics: str = setting(
        "exact",
        help='"fast" spares onnxruntime engines what NaN in maxima and wrong indices cost.',
        rebuilds=True,
        parse=values.one_of(NUMERICS),
        per_engine=True,
    )
    require_full_compilation: bool = setting(
        False, help="Raise if a node of the model would stay in PyTorch.", rebuilds=False
    )
    report: Any = setting(  # noqa: RUF009  (a function cannot change)
        None,
        help="Reports what is in engines, and why: True prints, a path gets JSON, or a function.",
        rebuilds=False,
        parse=values.report_target,
    )
    dryrun: bool = setting(
        False, help="Print what would be compiled, and build nothing.", rebuilds=False
    )
    fallback: str | None = setting(
        None,
        help='Where no engine fits: "eager" runs the source, "inductor" compiles it, or "error".',
        unset="set at run time",
        rebuilds=False,
        parse=values.one_of(FALLBACKS, optional=True),
    )
    build_timeout_s: float = setting(
        3600.0,
        help="Seconds after which an engine build is stopped.",
        rebuilds=False,
        parse=values.positive("a number of seconds", "give a larger build_timeout_s"),
        per_engine=True,
    )
    check: str = setting(
        "fallback",
        help='On a mismatch: "fallback" to PyTorch, "error", "accept", "first-open"; or "off".',
        rebuilds=False,
        parse=values.one_of(CHECKS),
    )
    check_budget: float = setting(
        0.1,
        help="Share of the compile time that comparing on drawn inputs may take besides.",
        rebuilds=False,
        parse=values.at_least_zero(
            "a share of the compile time",
            "give 0 to compare on the example inputs alone",
        ),
    )
    optimize_for: str | None = setting(
        None,
        help='Build for every backend that runs here, best first: "latency", "throughput", "size".',
        unset="the order of `engines`",
        rebuilds=False,
        parse=values.one_of(GOALS, optional=True),
    )
    optimize_budget: float = setting(
        600.0,
        help="Seconds after which no further candidate of `optimize_for` is built.",
        rebuilds=False,
        parse=values.positive("a number of seconds", "give a larger optimize_budget"),
    )
    strict: bool = setting(False, help="Passed to `torch.export.export`.", rebuilds=False)
    cache_dir: str | None = setting(
        None,
        help='Folder of the cache; "off" disables it.',
        unset="PORTRT_CACHE_DIR, or the user's cache folder",
        rebuilds=False,
        parse=values.folder,
    )
    cache_built_engines: bool = setting(
        True, help="Store what is built in the cache.", rebuilds=False
    )
    reuse_cached_engines: bool = setting(
        True, help="Take what was built before from the cache.", rebuilds=False
    )
    backend_options: tuple[BackendOptions, ...] = ()

    def __init__(
        self,
        *,
        output_format: str = "module",
        backend_options: Iterable[BackendOptions] = (),
        **options: Unpack[SettingsKeywords],
    ) -> None:
        given: dict[str, Any] = {"output_format": output_format, **options}
        _check_known("Settings", given)
        own = options_of(Settings)
        for name, option in own.items():
            value = option.parse(name, given.pop(name, option.default))
            object.__setattr__(self, name, value)
        object.__setattr__(self, "backend_options", route(backend_options, given))

    if not TYPE_CHECKING:  # portrt's own code uses `of` with the class of the option

        def __getattr__(self, name: str) -> Any:
            for cls in option_classes():
                if name in options_of(cls):
                    return getattr(self.of(cls), name)
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Settings:
        """Create settings from the keyword arguments of a `compile` call.

        Raises:
            SettingsError: An option is unknown (the message names the closest known one) or its
                value is invalid.
        """
        runtime_of(options)  # of the process, and in no setting
        options = {k: v for k, v in with_precision(options).items() if k != USE_PYTHON_RUNTIME}
        _check_known("compile()", options, WITHOUT_MEANING)
        for name in options:
            if name in WITHOUT_MEANING:
                _log_once(name, WITHOUT_MEANING[name])
        return cls(**{name: options[name] for name in options if name not in WITHOUT_MEANING})

    def of(self, cls: type[_Options]) -> _Options:
        """Return the options of a class that one or several backends declare."""
        return next((item for item in self.backend_options if type(item) is cls), cls())

    def of_backend(self, name: str) -> BackendOptions:
        """Return the options of a backend by its name; empty if it declares none."""
        return self.of(options_class(name) or BackendOptions)


def all_options() -> dict[str, Option]:
    """Return every option of `compile`: those of `Settings`, and those of all backends."""
    found = dict(options_of(Settings))
    for cls in option_classes():
        for name, option in options_of(cls).items():
            found.setdefault(name, option)
    return found


def _check_known(what: str, given: Iterable[str], ignored: Iterable[str] = ()) -> None:
    if all(name in options_of(Settings) for name in given):  # no backend is looked up
        return
    known = all_options()
    for name in given:
        if name not in known and name not in ignored:
            near = difflib.get_close_matches(name, [*known, *ignored], n=1)
            raise SettingsError(
                f"{what} has no option {name!r}",
                f"one of {', '.join(sorted(known))}",
                f"did you mean {near[0]!r}?" if near else "leave the option out",
            )


def _log_once(name: str, reason: str) -> None:
    if name not in _logged_once:
        _logged_once.add(name)
        logger.info("option %s has no effect: %s", name, reason)
