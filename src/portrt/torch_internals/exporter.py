"""Private parts of the ONNX exporter, and of decomposition."""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from portrt.torch_internals.operator_lists import registered

if TYPE_CHECKING:
    import onnx_ir


Table = dict[Any, Callable[..., Any]]
# (operator, its translation to ONNX, whether it takes complex tensors); hashable, because
# registries are cached by it.
Translations = tuple[tuple[Any, Callable[..., Any], bool], ...]

# The newest opset that torch.onnx of torch 2.11 to 2.14 can write. In it attention, RMS norm and
# rotary embedding are one node each.
NEWEST_OPSET = 23


@lru_cache(maxsize=16)
def _registry(opset: int, translations: Translations = ()) -> Any:
    from torch.onnx._internal.exporter import _core, _registration

    _registration.logger.addFilter(_is_news)
    _core.logger.addFilter(_is_news)
    if not translations:  # this reads the sources of torch's own, for a second
        return _registration.ONNXRegistry().from_torchlib(opset_version=opset)
    registry = copy.copy(_registry(opset))
    registry.functions = {op: list(found) for op, found in registry.functions.items()}
    for target, function, takes_complex in translations:
        registry.register_op(target, function, is_complex=takes_complex)
    return registry


def _is_news(record: logging.LogRecord) -> bool:
    """Return no for messages on torchvision, nodes without a module and translations of graphs."""
    message = record.getMessage()
    known = ("torchvision", "nn_module_stack not found", "Failed to infer the signature")
    return not any(part in message for part in known)


def has_onnx_translation(node: torch.fx.Node, opset: int, translations: Translations = ()) -> bool:
    """Return whether torch.onnx translates this operator call, with its dtypes, at this opset.

    Args:
        node: The call.
        opset: ONNX operator set.
        translations: Translations in addition to torch's own.
    """
    from torch.onnx._internal.exporter import _dispatching

    found, _ = _dispatching.dispatch(node, _registry(opset, translations))
    return found is not None


def onnx_decompositions(opset: int, translations: Translations = ()) -> Table:
    """Return the decompositions that torch.onnx runs: none for operators that it translates."""
    return dict(_decompositions(_registry(opset, translations), translations, registered()))


@lru_cache(maxsize=4)
def _decompositions(registry: Any, translations: Translations, _registered: Hashable) -> Table:
    from torch.onnx._internal.exporter import _decomp

    translated = set(_decomp.get_onnx_implemented_overloads(registry))
    table: Table = _decomp.create_onnx_friendly_decomposition_table(translated)
    for target, _, _ in translations:  # torch's list covers only its own translations
        table.pop(target, None)
    return table


def oblivious_to_size_one() -> AbstractContextManager[Any]:
    """Keep torch from specializing dynamic sizes of 0 and 1, in a context, as torch.onnx does."""
    import torch.fx.experimental._config as config

    settings: Any = config
    patch: AbstractContextManager[Any] = settings.patch(backed_size_oblivious=True)
    return patch


def unguarded() -> AbstractContextManager[Any]:
    """Keep comparisons of sizes from adding guards, in a context and in this thread."""
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    return ShapeEnv().suppress_guards()


@contextlib.contextmanager
def decomposed_as(operator: Any, other: Callable[..., Any]) -> Iterator[None]:
    """Make tracing replace an operator that torch decomposes in Python by `other`, in a context.

    The table of `run_decompositions` comes too late: the dispatcher and shape inference decompose
    the operator before.
    """
    table: Table = torch._decomp.decomposition_table
    kernels, known = dict(operator.py_kernels), table.get(operator)
    try:
        operator.py_kernels.update(dict.fromkeys(kernels, other))
        operator._dispatch_cache.clear()
        if known is not None:
            table[operator] = other
        yield
    finally:
        operator.py_kernels.update(kernels)
        operator._dispatch_cache.clear()
        if known is not None:
            table[operator] = known


def onnx_ir_from_program(
    program: ExportedProgram,
    opset: int,
    translations: Translations = (),
    prepare: Callable[[torch.fx.GraphModule], None] = lambda _: None,
) -> onnx_ir.Model:
    """Translate a decomposed program to ONNX. Modifies the graph of `program`.

    Args:
        program: What to translate.
        opset: ONNX operator set.
        translations: Beside torch's own.
        prepare: Edits each graph of the program, those of branches included, once the exporter has
            made its type promotions explicit.

    Raises:
        torch.onnx.errors.OnnxExporterError: A node has no translation.
    """
    from torch.onnx._internal import _lazy_import
    from torch.onnx._internal.exporter import _core, _fx_passes

    if _promotes(program.graph_module):
        _fx_passes.insert_type_promotion_nodes(program.graph_module)
    for module in program.graph_module.modules():
        prepare(module)
    graph_module = _fx_passes.remove_assertion_nodes(program.graph_module)
    graph_module.recompile()
    onnx_program = _core._exported_program_to_onnx_program(
        program, registry=_registry(opset, translations)
    )
    _agree_on_functions(onnx_program.model)
    # The exporter writes opset 18 unless an operator needs a newer one, whatever the registry has.
    model: onnx_ir.Model = _lazy_import.onnxscript_apis.convert_version(  # type: ignore[attr-defined]
        onnx_program.model, opset
    )
    return model


def _promotes(graph_module: torch.fx.GraphModule) -> bool:
    """Return whether the exporter would insert type promotions; its pass runs every node again."""
    from torch.onnx._internal.fx import type_utils
    from torch.onnx._internal.fx.passes import type_promotion

    def dtype_of(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value.dtype
        return type_utils.from_scalar_type_to_torch_dtype(type(value))

    def differs(node: torch.fx.Node) -> bool:
        rule = type_promotion.get_type_promotion_rule(node, _promotion_rules())
        if rule is None:
            return False
        args, kwargs = torch.fx.map_arg((node.args, node.kwargs), lambda arg: arg.meta["val"])
        wanted = rule.preview_type_promotion(args, kwargs)
        pairs = [(args[place], dtype) for place, dtype in wanted.args_dtypes.items()]
        pairs += [(kwargs[name], dtype) for name, dtype in wanted.kwargs_dtypes.items()]
        return any(
            dtype is not None and dtype_of(leaf) != dtype
            for given, dtype in pairs
            for leaf in pytree.tree_leaves(given)
        )

    try:
        return any(
            differs(node)
            for module in graph_module.modules()
            if isinstance(module, torch.fx.GraphModule)
            for node in module.graph.nodes
            if node.op == "call_function"
        )
    except Exception:  # of which the pass raises its own
        return True


@lru_cache(maxsize=1)
def _promotion_rules() -> Any:
    from torch.onnx._internal.fx.passes import type_promotion

    return type_promotion.TypePromotionTable()


def onnx_scan(body: Any, states: Any, rows: Any, others: Any) -> Any:
    """Write an ONNX Scan that calls a function, as the exporter does for torch's scan."""
    from torch.onnx._internal.exporter._torchlib.ops import hop

    return hop.higher_order_scan(body, states, rows, others)


def onnx_call(operator: str, inputs: Any, outputs: int, **attributes: Any) -> Any:
    """Write a call of an ONNX operator inside a translation, with any number of outputs.

    onnxscript's opsets write one output where an operator has a variable number, as Scan.
    """
    from torch.onnx._internal.exporter._torchlib.ops import hop

    return hop.call_op(operator, *inputs, _num_outputs=outputs, **attributes)


def torch_translation(target: Any) -> Callable[..., Any]:
    """Return torch.onnx's own translation of an operator, for one that replaces part of it."""
    found: Callable[..., Any] = _registry(NEWEST_OPSET).get_decomps(target)[0].onnx_function
    return found


def _agree_on_functions(model: onnx_ir.Model) -> None:
    """Set one version for the functions of branches: the exporter writes 1, in some calls 23."""
    domains = {domain for domain, _, _ in model.functions}
    holders: list[Any] = [model.graph, *model.functions.values()]
    for holder in holders:
        for domain in domains & set(holder.opset_imports):
            holder.opset_imports[domain] = 1


def torch_tensor_of(value: Any) -> torch.Tensor | None:
    """Return the torch tensor of an initializer that the exporter made, else None."""
    raw = getattr(value, "raw", None)
    return raw if isinstance(raw, torch.Tensor) else None
