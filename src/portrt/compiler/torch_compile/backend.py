"""`torch.compile(model, backend="portrt")`: engines for the graphs that Dynamo finds."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from portrt.compiler.building.tasks import default_names
from portrt.compiler.compile import compile as compile_program
from portrt.compiler.options.settings import Settings
from portrt.compiler.torch_compile.call import callable_of
from portrt.compiler.torch_compile.graph import (
    DynamoGraph,
    examples_of,
    prepared,
    profile_of,
    shapes_of,
    without_autocast,
)
from portrt.compiler.torch_compile.outputs import RefusedGraphError, memory_of, value_of
from portrt.engines import registry as runtimes
from portrt.errors import (
    BackendUnavailableError,
    CaptureError,
    PortrtError,
    SettingsError,
    first_line,
)
from portrt.runtime.calls import engine_calls
from portrt.torch_internals.dynamo import apart_from_dynamo, as_dynamo_error

logger = logging.getLogger(__name__)

# Set by `torch.compile` itself, or without a meaning for a part of a model.
_NOT_HERE = {
    "output_format": "Dynamo calls what is compiled",
    "dryrun": "portrt.compile(..., dryrun=True) prints what would be compiled",
}
# Options that make a graph without engines an error.
_STRICT = ("require_engines", "require_full_compilation")

# Sets of weights of one graph that are kept with `immutable_weights`, each with its engines.
_MOST_VARIANTS = 64

_logged_once: set[str] = set()


def portrt_backend(
    gm: torch.fx.GraphModule,
    example_inputs: Sequence[Any],
    *,
    options: Mapping[str, Any] | None = None,
    mode: str | None = None,
) -> Callable[..., Any]:
    """Compile a graph of Dynamo; `torch.compile` calls this.

    Args:
        gm: The graph. Weights are among its arguments, and sizes that are dynamic.
        example_inputs: Arguments of the first call.
        options: Options of `portrt.compile`. `immutable_weights` is False if it is not given.
        mode: Of `torch.compile`; it has no effect.

    Returns:
        A function of the same arguments. It is the graph itself, in PyTorch, where gradients are
        wanted, or where no engine takes any of it.

    Raises:
        SettingsError: An option is unknown, or has an invalid value.
        BackendUnavailableError: An engine name is unknown, or none of `engines` can be built here.
        PartitionError, BuildError, CheckError: As `portrt.compile`, if an option requires it.
    """
    try:
        settings = _settings(options or {})
        if mode is not None:
            _log_once(f"mode={mode!r} of torch.compile has no effect on the backend 'portrt'")
        if wants_gradients(gm):
            _log_once(
                "a graph of torch.compile(backend='portrt') needs gradients, which engines do not "
                "compute: it runs in PyTorch. For inference, call the model under torch.no_grad() "
                "or torch.inference_mode()"
            )
            return gm.forward
        return _Variants(gm, settings, options or {}).first(example_inputs)
    except PortrtError as err:
        raise as_dynamo_error(err) from err


def wants_gradients(gm: torch.fx.GraphModule) -> bool:
    """Return whether a result of the graph, or what it writes to an argument, has a gradient."""
    if not torch.is_grad_enabled():
        return False
    results: Any = gm.graph.output_node().args[0]
    if any(_has_gradient(item) for item in results):
        return True
    given = {memory_of(value_of(n)) for n in gm.graph.nodes if n.op == "placeholder"} - {None}
    calls = [node for node in gm.graph.nodes if node.op in ("call_function", "call_method")]
    return any(
        _has_gradient(node) and memory_of(value_of(node)) in given and _writes(node)
        for node in calls
    )


def _has_gradient(item: Any) -> bool:
    value = value_of(item) if isinstance(item, torch.fx.Node) else None
    return isinstance(value, torch.Tensor) and value.requires_grad


def _writes(node: torch.fx.Node) -> bool:
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return name.endswith("_") or name == "setitem" or name.startswith("i")


def _settings(options: Mapping[str, Any]) -> Settings:
    for name in options:
        if name in _NOT_HERE:
            raise SettingsError(
                f"torch.compile was given the option {name!r}",
                f"other options of portrt.compile: {_NOT_HERE[name]}",
                "leave the option out",
            )
    return Settings.from_options({"immutable_weights": False, **options})


class _Variants:
    """The programs of one graph: one, or with `immutable_weights` one for each set of weights."""

    def __init__(
        self, gm: torch.fx.GraphModule, settings: Settings, options: Mapping[str, Any]
    ) -> None:
        self._gm = gm
        self._eager: Callable[..., Any] = gm.forward
        self._settings = settings
        self._options = {"immutable_weights": False, **options}
        # Weights by their positions, and the function; the last called first.
        self._known: list[tuple[dict[int, Any], Callable[..., Any]]] = []

    def first(self, arguments: Sequence[Any]) -> Callable[..., Any]:
        """Compile for the arguments of the first call."""
        weights, call = self._compiled(arguments)
        if not self._settings.immutable_weights or call is self._eager:
            return call
        self._known.append((weights, call))
        return self._call

    def _call(self, *args: Any) -> Any:
        for index, (weights, call) in enumerate(self._known):
            if all(args[position] is tensor for position, tensor in weights.items()):
                if index:
                    self._known.insert(0, self._known.pop(index))
                return call(*args)
        positions = self._known[0][0]
        _, call = self._compiled(args)
        self._known.insert(0, ({position: args[position] for position in positions}, call))
        del self._known[_MOST_VARIANTS:]
        return call(*args)

    def _compiled(self, arguments: Sequence[Any]) -> tuple[dict[int, Any], Callable[..., Any]]:
        """Compile; PyTorch runs the graph where that is not possible."""
        try:
            graph = prepared(self._gm, arguments)
            call = self._call_of(graph, arguments)
        except (RefusedGraphError, PortrtError) as err:
            if isinstance(err, PortrtError) and self._is_required(err):
                raise
            logger.warning("a graph of torch.compile runs in PyTorch: %s", err)
            return {}, self._eager
        except Exception as err:
            logger.warning(
                "a graph of torch.compile runs in PyTorch, since portrt fails on it: %s: %s",
                type(err).__name__,
                first_line(err),
                exc_info=logger.isEnabledFor(logging.DEBUG),
            )
            return {}, self._eager
        return {position: arguments[position] for position in graph.weights.values()}, call

    def _is_required(self, err: PortrtError) -> bool:
        if isinstance(err, BackendUnavailableError):
            return True
        settings = self._settings
        strict = any(getattr(settings, name) for name in _STRICT) or settings.check == "error"
        return strict and not isinstance(err, CaptureError)

    def _call_of(self, graph: DynamoGraph, arguments: Sequence[Any]) -> Callable[..., Any]:
        examples = examples_of(graph, arguments)
        program = None
        with apart_from_dynamo(), torch.inference_mode(False), without_autocast():
            for inferred in (False, True):
                shapes = shapes_of(graph, inferred=inferred)
                try:
                    program = self._program(graph, examples, shapes)
                    break
                except CaptureError as err:
                    if inferred or not any(shapes):
                        raise
                    logger.debug("captured again with inferred sizes: %s", first_line(err))
        assert program is not None
        if not any(engine_calls(program)):
            raise RefusedGraphError("no engine takes any of it")
        return callable_of(program, graph, self._eager)

    def _program(
        self, graph: DynamoGraph, examples: Sequence[Any], shapes: tuple[Any, ...]
    ) -> torch.export.ExportedProgram:
        """Compile for these shapes; engines that need a maximum get one."""
        devices = {item.device.type for item in examples if isinstance(item, torch.Tensor)}
        device = next(iter(devices - {"cpu"}), "cpu")
        options: dict[str, Any] = {**self._engines_for(device), **self._options}
        given: dict[str, Any] = {
            "inputs": examples,
            "dynamic_shapes": shapes if any(shape is not None for shape in shapes) else None,
            "output_format": "exported_program",
        }
        profile = profile_of(graph)
        if profile and "tensorrt" in str(options.get("engines")):
            try:
                found: torch.export.ExportedProgram = compile_program(
                    graph.module, profiles=[profile], **given, **options
                )
                return found
            except SettingsError as err:  # the model takes less than that
                logger.info("no range for TensorRT: %s", first_line(err))
        found = compile_program(graph.module, **given, **options)
        return found  # noqa: RET504  (mypy sees no type otherwise)

    def _engines_for(self, device: str) -> dict[str, Any]:
        """Return the option `engines`: those that run here, if there are any.

        What is compiled is never stored, so that engines for other machines are of no use.
        """
        names = default_names(device)
        here = [name for name in names if runtimes.runtime(name).can_run(device)]
        return {"engines": here} if here else {}


def _log_once(text: str) -> None:
    if text not in _logged_once:
        _logged_once.add(text)
        logger.warning("%s", text)
