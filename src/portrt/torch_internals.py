"""Every private torch API that portrt uses, each with the reason.

tests/unit/test_torch_internals.py fails when torch moves one of them.

- The ONNX exporter's parts: `torch.onnx.export` runs as a whole only (decompose, translate and
  optimize a model), while portrt must know which nodes have a translation before it cuts the
  graph, and must not decompose every block a second time.
- `ExportedProgram`'s attributes: a graph in which blocks were replaced is put together directly, so
  that symbols, guards and the calling convention stay what `torch.export` made them.
- `torch.fx.passes.utils.fuser_utils`: moves a group of nodes to a submodule.
- The reader of a .pt2 archive: `torch.export.load` offers no memory-mapped constants.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from copy import copy
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch.export import ExportedProgram, ModuleCallEntry
from torch.export.graph_signature import ExportGraphSignature, InputKind
from torch.utils import _pytree as pytree

from portrt.package.archive import CONSTANTS, MODEL, WEIGHTS, Archive
from portrt.package.mapped import map_file

if TYPE_CHECKING:
    import onnx_ir

logger = logging.getLogger(__name__)

Table = dict[Any, Callable[..., Any]]

# The newest opset that torch.onnx of torch 2.11 to 2.14 can write. With it attention, RMS norm and
# rotary embedding are one node each.
NEWEST_OPSET = 23


@lru_cache(maxsize=16)
def _registry(opset: int, extra: tuple[tuple[Any, Callable[..., Any]], ...] = ()) -> Any:
    from torch.onnx._internal.exporter import _core, _registration

    _registration.logger.addFilter(_is_news)
    _core.logger.addFilter(_is_news)
    registry = _registration.ONNXRegistry().from_torchlib(opset_version=opset)
    from portrt.convert.translations import mapping, quantized, spectral

    for target, function in (*quantized.built_in(), *mapping.built_in(), *extra):
        registry.register_op(target, function)
    for target, function in spectral.TRANSLATIONS:
        takes_complex = target is not torch.ops.aten._fft_r2c.default
        registry.register_op(target, function, is_complex=takes_complex)
    return registry


def _registry_with(opset: int, extra: Any) -> Any:
    return _registry(opset, extra) if extra else _registry(opset)


def _is_news(record: logging.LogRecord) -> bool:
    """Not of torchvision, nodes without a module, or translations that take a graph."""
    message = record.getMessage()
    known = ("torchvision", "nn_module_stack not found", "Failed to infer the signature")
    return not any(part in message for part in known)


def has_onnx_translation(node: torch.fx.Node, opset: int, extra: Any = ()) -> bool:
    """Whether torch.onnx translates this operator call, with these dtypes, at this opset."""
    from torch.onnx._internal.exporter import _dispatching

    found, _ = _dispatching.dispatch(node, _registry_with(opset, extra))
    return found is not None


def onnx_decompositions(opset: int, extra: Any = ()) -> Table:
    """The decompositions that torch.onnx would run: operators it translates stay whole."""
    from torch.onnx._internal.exporter import _decomp

    translated = set(_decomp.get_onnx_implemented_overloads(_registry_with(opset, extra)))
    table: Table = _decomp.create_onnx_friendly_decomposition_table(translated)
    for target, _ in extra:  # torch's list is of its own translations alone
        table.pop(target, None)
    return table


def oblivious_to_size_one() -> AbstractContextManager[Any]:
    """Decompose without taking a dynamic size of 0 or 1 for a constant, as torch.onnx does."""
    import torch.fx.experimental._config as config

    settings: Any = config
    patch: AbstractContextManager[Any] = settings.patch(backed_size_oblivious=True)
    return patch


@contextlib.contextmanager
def decomposed_as(operator: Any, other: Callable[..., Any]) -> Iterator[None]:
    """Within it, tracing takes an operator that torch decomposes in Python for a call of `other`.

    The table that `run_decompositions` takes cannot say so: the operator is taken apart before,
    by the dispatcher and where sizes are inferred.
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


def onnx_ir_from_program(program: ExportedProgram, opset: int, extra: Any = ()) -> onnx_ir.Model:
    """Translate a decomposed program to ONNX. Changes the graph of `program`.

    Raises:
        torch.onnx.errors.OnnxExporterError: A node has no translation.
    """
    from torch.onnx._internal import _lazy_import
    from torch.onnx._internal.exporter import _core, _fx_passes

    from portrt.convert.exact_doubles import exact_doubles

    _fx_passes.insert_type_promotion_nodes(program.graph_module)
    for module in program.graph_module.modules():
        exact_doubles(module)  # of branches, too
    graph_module = _fx_passes.remove_assertion_nodes(program.graph_module)
    graph_module.recompile()
    onnx_program = _core._exported_program_to_onnx_program(
        program, registry=_registry_with(opset, extra)
    )
    _agree_on_functions(onnx_program.model)
    # Without operators that name a newer opset the exporter writes 18, whatever the registry.
    model: onnx_ir.Model = _lazy_import.onnxscript_apis.convert_version(  # type: ignore[attr-defined]
        onnx_program.model, opset
    )
    return model


def onnx_scan(body: Any, states: Any, rows: Any, others: Any) -> Any:
    """An ONNX Scan that calls a function, as the exporter writes it for torch's own scan."""
    from torch.onnx._internal.exporter._torchlib.ops import hop

    return hop.higher_order_scan(body, states, rows, others)


def _agree_on_functions(model: onnx_ir.Model) -> None:
    """Give the functions of branches one version: the exporter writes 1, and in some calls 23."""
    domains = {domain for domain, _, _ in model.functions}
    holders: list[Any] = [model.graph, *model.functions.values()]
    for holder in holders:
        for domain in domains & set(holder.opset_imports):
            holder.opset_imports[domain] = 1


def torch_tensor_of(value: Any) -> torch.Tensor | None:
    """The torch tensor behind an initializer that the exporter made, else None."""
    raw = getattr(value, "raw", None)
    return raw if isinstance(raw, torch.Tensor) else None


def fuse(
    graph_module: torch.fx.GraphModule,
    groups: Iterable[Iterable[torch.fx.Node]],
    prefix: str = "block_",
) -> None:
    """Move each group of nodes to a submodule `block_0`, `block_1`, ... that returns a tuple."""
    from torch.fx.passes.utils.fuser_utils import fuse_by_partitions

    names = placeholder_names(graph_module.graph)
    fuse_by_partitions(
        graph_module,
        [dict.fromkeys(group) for group in groups],
        prefix=prefix,
        always_return_tuple=True,
    )
    name_placeholders(graph_module.graph, names)


def placeholder_names(graph: torch.fx.Graph) -> list[str]:
    """Names of the placeholders, in order."""
    return [node.name for node in graph.nodes if node.op == "placeholder"]


def name_placeholders(graph: torch.fx.Graph, names: Iterable[str]) -> None:
    """Give the placeholders exactly these names, as torch.export does.

    A copied graph has `input_1` for `input`: fx avoids the names of Python's builtins.
    """
    nodes = [node for node in graph.nodes if node.op == "placeholder"]
    for node, name in zip(nodes, names, strict=True):
        node.name = node.target = name


def program_from_graph(
    like: ExportedProgram,
    graph_module: torch.fx.GraphModule,
    signature: ExportGraphSignature,
    state_dict: Mapping[str, Any],
    constants: Mapping[str, Any],
    module_call_graph: list[ModuleCallEntry] | None = None,
) -> ExportedProgram:
    """A program with another graph, and the symbols and guards of `like`.

    Its calling convention too, unless `module_call_graph` gives another.
    """
    root_entry = [entry for entry in like.module_call_graph if entry.fqn == ""]
    program = ExportedProgram(
        root=graph_module,
        graph=graph_module.graph,
        graph_signature=signature,
        state_dict=dict(state_dict),
        range_constraints=dict(like.range_constraints),
        module_call_graph=module_call_graph or root_entry,
        example_inputs=like.example_inputs,
        constants=dict(constants),
        verifiers=like.verifiers,
    )
    program._guards_code = list(like._guards_code)
    return program


def with_guards_of(program: ExportedProgram, other: ExportedProgram | None) -> ExportedProgram:
    """The program itself, from now on with the guards of another, or with none."""
    program._guards_code = [] if other is None else list(other._guards_code)
    return program


def guards_code_of(program: ExportedProgram) -> list[str]:
    """The guards on the inputs, as text."""
    return list(program._guards_code)


def user_input_values(program: ExportedProgram) -> list[Any]:
    """The fake tensor, or the number, of each user input, in the order of the flat arguments."""
    values = {
        node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"
    }
    return [
        values.get(getattr(spec.arg, "name", ""))
        for spec in program.graph_signature.input_specs
        if spec.kind is InputKind.USER_INPUT
    ]


def with_ranges(program: ExportedProgram, ranges: Mapping[Any, Any]) -> ExportedProgram:
    """The same program, not a copy of it, with other ranges for its symbols."""
    changed = copy(program)
    changed._range_constraints = dict(ranges)
    return changed


def is_symbolic_call(node: torch.fx.Node) -> bool:
    """Whether a node computes a size (an int, float or bool) rather than tensors."""
    value = node.meta.get("val")
    return isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool, int, float, bool))


def expression_of(size: torch.SymInt | torch.SymBool) -> Any:
    """The sympy expression of a symbolic size, or of a condition on sizes."""
    return size.node.expr


def hint_of(size: Any) -> int | None:
    """The size that the example had, or None for a size that depends on data."""
    if isinstance(size, int):
        return size
    return int(size.node.hint) if size.node.has_hint() else None


def is_data_dependent(value: Any) -> bool:
    """Whether a fake value has a size that only the data decides (an unbacked symbol)."""
    from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

    return bool(free_unbacked_symbols(value))


def is_unbacked(symbol: Any) -> bool:
    """Whether a symbol stands for a number that only the data decides."""
    from torch.utils._sympy.symbol import SymT, symbol_is_type

    kinds = (SymT.UNBACKED_INT, SymT.UNBACKED_FLOAT)
    return bool(symbol.is_symbol) and symbol_is_type(symbol, kinds)


def fake_mode_of(graph: torch.fx.Graph) -> Any:
    """The mode that the graph's fake tensors belong to."""
    from torch._guards import detect_fake_mode

    return detect_fake_mode([node.meta.get("val") for node in graph.nodes])


@contextlib.contextmanager
def inferring(mode: Any) -> Iterator[None]:
    """Within it, operators are called on fake tensors of `mode`, with symbolic sizes, too.

    Without the Python dispatcher some of torch's own shape functions fail on those.
    """
    from torch._dispatch.python import enable_python_dispatcher

    with mode, enable_python_dispatcher():
        yield


class _MappedRecords:
    """What torch's archive reader asks of `torch._C.PyTorchFileReader`, over a mapped file."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._memory = map_file(str(archive.path))

    def get_record_size(self, name: str) -> int:
        return self._archive.record(name).size

    def get_record(self, name: str) -> bytes | memoryview:
        """JSON and the like as bytes; tensors, which torch 2.11 reads so, as mapped memory."""
        if not name.startswith((CONSTANTS, WEIGHTS)) or name.endswith(".json"):
            return self._archive.read(name)
        record = self._archive.record(name)
        return memoryview(self._memory)[record.offset : record.offset + record.size]

    def get_storage_from_record(self, name: str, numel: int, dtype: torch.dtype) -> torch.Tensor:
        record = self._archive.record(name)
        if numel * dtype.itemsize != record.size:
            raise ValueError(f"record {name} has {record.size} bytes")
        found = torch.frombuffer(
            self._memory, dtype=torch.uint8, count=record.size, offset=record.offset
        )
        if record.offset % dtype.itemsize:  # another writer than torch's does not align
            found = found.clone()
        return found.view(dtype)

    def get_all_records(self) -> list[str]:
        return list(self._archive.records)


def load_mapped(archive: Archive) -> ExportedProgram:
    """The program named "model" of a .pt2 file, with its tensors mapped rather than read."""
    from torch.export.pt2_archive import _package

    reader: Any = object.__new__(_package.PT2ArchiveReader)
    reader.archive_file = _MappedRecords(archive)
    names = [name for name in archive.records if name == MODEL]
    programs = _package._load_exported_programs(reader, names, None)
    program: ExportedProgram = programs["model"]
    return program


def guards_of(module: torch.fx.GraphModule) -> torch.nn.Module | None:
    """The submodule of an exported program's module that checks its flat inputs, if it has one."""
    return getattr(module, "_guards_fn", None)


def set_guards(module: torch.fx.GraphModule, guards: torch.nn.Module) -> None:
    """Put another module in its place."""
    module._guards_fn = guards


def unchecked_module(program: ExportedProgram) -> torch.fx.GraphModule:
    """A program's module without torch's checks of its inputs, which the caller has made.

    torch refuses an input of which a size is a rounded one, such as s // 2 + 1.
    """
    module: torch.fx.GraphModule = program.module(check_guards=False)
    module._forward_pre_hooks.clear()
    return module


def is_tracing() -> bool:
    """Whether torch.export or torch.jit.trace is running this code with stand-ins for tensors."""
    untyped: Any = torch.jit
    return torch.compiler.is_exporting() or bool(untyped.is_tracing())


def argument_names(program: ExportedProgram) -> list[str] | None:
    """Names of the exported forward's arguments, positional ones first, where torch kept them."""
    signature = program.module_call_graph[0].signature
    return None if signature is None else signature.forward_arg_names


def run_flat(
    program: ExportedProgram,
    example_inputs: tuple[tuple[Any, ...], dict[str, Any]],
    run_block: Callable[[str, tuple[Any, ...]], Any],
) -> tuple[Any, ...]:
    """Run a program's graph on real inputs; calls of submodules go to `run_block`."""
    kinds = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
    given = iter(pytree.tree_leaves(example_inputs))
    flat = []
    for node in program.graph.nodes:
        if node.op == "placeholder":
            target = kinds[node.name].target
            held = program.state_dict.get(target, program.constants.get(target))
            flat.append(next(given) if target is None else held)

    class Runner(torch.fx.Interpreter):
        def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if target.startswith("block_"):
                return run_block(target, args)
            return super().call_module(target, args, kwargs)

        def call_function(self, target: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
            if target is torch.ops.higher_order.cond:
                for branch in args[1:3]:  # both, so that the blocks in each see inputs
                    with contextlib.suppress(Exception):
                        branch(*args[3])
            return super().call_function(target, args, kwargs)

    results: tuple[Any, ...] = Runner(program.graph_module).run(*flat)
    return results


@contextlib.contextmanager
def without_torch_noise() -> Iterator[None]:
    """Keep quiet about what torch deprecates and still uses itself."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec", FutureWarning)
        yield


def constant_names(program: ExportedProgram) -> Mapping[str, str]:
    """Placeholder name -> name of the tensor constant."""
    names: Mapping[str, str] = program.graph_signature.inputs_to_lifted_tensor_constants
    return names


def with_constants(
    program: ExportedProgram, constants: Mapping[str, torch.Tensor]
) -> ExportedProgram:
    """The same program with other tensors for some constants; only to be saved."""
    other = copy(program)
    other._constants = {**program.constants, **constants}
    return other


def compiled_cuda_function(source: str, name: str, device: torch.device) -> ctypes.c_void_p | None:
    """The driver's handle of a kernel that torch compiled; None where torch cannot.

    `torch.cuda._compile_kernel` gives a callable that takes 35 to 55 us a launch.
    """
    compile_kernel: Any = getattr(torch.cuda, "_compile_kernel", None)
    if compile_kernel is None:
        return None
    try:
        with torch.cuda.device(device):
            kernel = compile_kernel(source, name)
    except Exception:  # no NVRTC beside this torch, for instance
        logger.debug("no kernel %s", name, exc_info=True)
        return None
    _kernels.append(kernel)  # for its module
    function: ctypes.c_void_p | None = kernel.func
    return function


_kernels: list[Any] = []


def empty_strided_on(device_type: str) -> Callable[..., torch.Tensor]:
    """(sizes, strides, dtype) -> a new tensor on the current device of a type.

    What Inductor's code calls in place of `torch.empty_strided`: it takes a third of the time, and
    keeps the interpreter's lock, which threads that give it away have to wait for.
    """
    from torch._C._dynamo import guards

    def slowly(sizes: tuple[int, ...], strides: tuple[int, ...], dtype: Any) -> torch.Tensor:
        return torch.empty_strided(sizes, strides, dtype=dtype, device=device_type)

    found: Callable[..., torch.Tensor]
    found = getattr(guards, f"_empty_strided_{device_type}", slowly)
    return found


def nothing_intercepts() -> bool:
    """Whether operators run as usual: no mode, no transform, no tracing, no hook of all modules."""
    return (
        _dispatch_modes() == 0
        and _function_modes() == 0
        and _transform() is None
        and _tracing_state() is None
        and not _global_hooks()
    )


_dispatch_modes: Callable[[], int] = torch._C._len_torch_dispatch_stack
_function_modes: Callable[[], int] = torch._C._len_torch_function_stack
_transform: Callable[[], Any] = torch._C._functorch.peek_interpreter_stack
_tracing_state: Callable[[], Any] = torch._C._get_tracing_state
_global_hooks: Callable[[], bool] = torch.nn.modules.module._has_any_global_hook


# Device index -> handle of the stream that is current in this thread, in 0.2 us; the public way
# takes 5. And the index of the current device. A torch without CUDA lacks both.
current_stream_handle: Callable[[int], int] = getattr(torch._C, "_cuda_getCurrentRawStream", int)
current_device_index: Callable[[], int] = getattr(torch._C, "_cuda_getDevice", int)
is_capturing: Callable[[], bool] = getattr(torch._C, "_cuda_isCurrentStreamCapturing", bool)
