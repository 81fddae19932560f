"""Fingerprints of graphs, programs and tensors: JSON values that are equal in every process.

Names of nodes, stack traces and module hierarchies are omitted: they do not affect the result,
unless an option names modules.
"""

from __future__ import annotations

import hashlib
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from portrt import torch_internals
from portrt.graphs.module_path import ModulePath

# Namespaces of operators that are defined by the version of torch alone. The decomposition of
# another library's operator can change while its name stays the same.
_TORCH_NAMESPACES = frozenset({"aten", "prims", "prim", "higher_order", "quantized_decomposed"})

_TORCH_CONSTANTS = (torch.dtype, torch.device, torch.layout, torch.memory_format)


class UnknownValueError(Exception):
    """A value without a fingerprint; the result is not cached then."""


def graph(module: torch.fx.GraphModule) -> list[Any]:
    """Describe every node with its operator and all arguments, and the graphs that it calls."""
    indices = {node: index for index, node in enumerate(module.graph.nodes)}
    described: list[Any] = []
    for node in module.graph.nodes:
        if node.op == "get_attr":
            described.append(["get_attr", _attribute(module, str(node.target))])
            continue
        target = None if node.op in ("placeholder", "output") else _target(node.target)
        args = (
            [_argument(value, indices) for value in node.args] if node.op != "placeholder" else []
        )
        kwargs = {name: _argument(value, indices) for name, value in node.kwargs.items()}
        described.append([node.op, target, args, kwargs])
    return described


def _attribute(module: torch.fx.GraphModule, name: str) -> Any:
    value: Any = module
    for part in name.split("."):
        value = getattr(value, part)
    if isinstance(value, torch.fx.GraphModule):
        return graph(value)
    if isinstance(value, torch.Tensor):
        return tensor(value)
    raise UnknownValueError(f"the graph reads {name}, a {type(value).__name__}")


def _target(target: Any) -> str:
    if isinstance(target, (torch._ops.OpOverload, torch._ops.HigherOrderOperator)):
        return str(target)
    if isinstance(target, (types.BuiltinFunctionType, types.FunctionType)):
        return f"{target.__module__}:{target.__qualname__}"
    raise UnknownValueError(f"the graph calls {target!r}")


def _argument(value: Any, indices: Mapping[torch.fx.Node, int]) -> Any:
    """Describe an argument; 1, 1.0, True and "1" have different descriptions."""
    if isinstance(value, torch.fx.Node):
        return ["node", indices[value]]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, (float, complex)):
        return ["number", repr(value)]
    if isinstance(value, (list, tuple)):
        return ["list", *(_argument(item, indices) for item in value)]
    if isinstance(value, dict):
        return ["dict", [[str(k), _argument(v, indices)] for k, v in value.items()]]
    if isinstance(value, slice):
        return ["slice", *(_argument(v, indices) for v in (value.start, value.stop, value.step))]
    if isinstance(value, _TORCH_CONSTANTS):
        return ["torch", str(value)]
    raise UnknownValueError(f"an argument is a {type(value).__name__}")


def modules(graph: torch.fx.Graph, patterns: Iterable[str]) -> list[bool]:
    """Return for each node whether it is in a module that matches a pattern."""
    wanted = list(patterns)
    if not wanted:
        return []
    paths = (ModulePath.of(node.meta) for node in graph.nodes)
    return [path.match(wanted) is not None for path in paths]


def has_foreign_operators(module: torch.fx.GraphModule) -> bool:
    """Return whether an operator is not torch's own, also in nested graphs."""
    return any(
        isinstance(node.target, torch._ops.OpOverload)
        and node.target.namespace not in _TORCH_NAMESPACES
        for nested in module.modules()
        if isinstance(nested, torch.fx.GraphModule)
        for node in nested.graph.nodes
    )


def tensor(value: Any) -> list[Any]:
    """Describe a tensor, including a digest of its bytes.

    Raises:
        UnknownValueError: It is not a plain strided tensor with data.
    """
    if not isinstance(value, torch.Tensor) or type(value.detach()) is not torch.Tensor:
        raise UnknownValueError(f"a tensor is a {type(value).__name__}")
    if value.layout is not torch.strided or value.is_quantized or value.is_meta:
        raise UnknownValueError(f"a tensor is {value.layout} on {value.device}")
    return [
        str(value.dtype),
        list(value.shape),
        list(value.stride()),
        str(value.device),
        value.requires_grad,
        bytes_digest(value),
    ]


def bytes_digest(value: torch.Tensor) -> str:
    """Return the SHA-256 of the elements in row-major order."""
    plain = value.detach().resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
    data: Any = plain.view(torch.uint8).numpy()
    return hashlib.sha256(memoryview(data)).hexdigest()


def signature(program: ExportedProgram) -> Any:
    """Describe how a program is called: arguments, results, symbols, their ranges and guards."""
    root = program.module_call_graph[0].signature
    if root is None:
        raise UnknownValueError("the program has no calling convention")
    specs = program.graph_signature
    return {
        "inputs": [repr(spec) for spec in specs.input_specs],
        "outputs": [repr(spec) for spec in specs.output_specs],
        "in_spec": _tree_text(root.in_spec),
        "out_spec": _tree_text(root.out_spec),
        "names": root.forward_arg_names,
        "ranges": sorted(f"{key}: {bounds}" for key, bounds in program.range_constraints.items()),
        "guards": sorted(torch_internals.guards_code_of(program)),
        "values": [_fake(value) for value in torch_internals.user_input_values(program)],
    }


def _tree_text(spec: Any) -> str:
    dumps: Callable[[Any], str] = pytree.treespec_dumps
    try:
        return dumps(spec)
    except Exception as err:
        raise UnknownValueError(f"a container of the signature is not serializable: {err}") from err


def _fake(value: Any) -> Any:
    """Describe dtype, symbolic sizes, sizes of the example, strides and device."""
    if not isinstance(value, torch.Tensor):
        return repr(value)
    hints = [torch_internals.hint_of(size) for size in value.shape]
    return [str(value.dtype), str(value.shape), hints, str(value.stride()), str(value.device)]


def weights(program: ExportedProgram) -> Any:
    """Describe parameters, buffers and constants, and which names share one tensor."""
    tensors = {**program.state_dict, **program.constants}
    first: dict[Any, str] = {}
    described = {}
    for name in sorted(tensors):
        own = tensor(tensors[name])
        identity = (tensors[name].data_ptr(), *map(str, own[:4])) if tensors[name].numel() else name
        described[name] = [*own, first.setdefault(identity, name)]
    return described


def examples(program: ExportedProgram) -> Any:
    """Describe the example inputs, which the compiled program stores."""
    if program.example_inputs is None:
        return None
    leaves, spec = pytree.tree_flatten(program.example_inputs)
    described = [
        tensor(leaf) if isinstance(leaf, torch.Tensor) else _argument(leaf, {}) for leaf in leaves
    ]
    return [described, _tree_text(spec)]


def process_state() -> dict[str, str]:
    """Describe the state of this process that changes what a graph becomes or computes.

    The default dtype and device of new tensors, autocast, and which algorithms PyTorch chooses:
    decompositions read them, and the outputs that engines are compared with depend on them.
    """
    cuda: Any = torch.backends.cuda  # torch's functions have no types
    autocast = ("cpu", "cuda")
    found = {
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "autocast": [
            torch.get_autocast_dtype(kind) for kind in autocast if torch.is_autocast_enabled(kind)
        ],
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "matmul": torch.get_float32_matmul_precision(),
        "mkldnn": torch.backends.mkldnn.enabled,
        "attention": [
            cuda.flash_sdp_enabled(),
            cuda.mem_efficient_sdp_enabled(),
            cuda.math_sdp_enabled(),
            cuda.cudnn_sdp_enabled(),
            torch.backends.mha.get_fastpath_enabled(),
        ],
    }
    return {name: str(value) for name, value in found.items()}
