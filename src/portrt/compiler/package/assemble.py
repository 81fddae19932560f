"""Assembly of the compiled program: engine calls replace the blocks in one ExportedProgram."""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping, Sequence
from importlib import metadata
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import (
    ExportGraphSignature,
    InputKind,
    InputSpec,
    TensorArgument,
)

from portrt import torch_internals
from portrt.compiler.plan import Block, Engine, Plan
from portrt.compiler.sizes import data_sizes
from portrt.format import manifest as manifests
from portrt.format.manifest import Blob
from portrt.graphs import nested
from portrt.graphs.control_flow import SubgraphSite, add_operand, subgraph_sites
from portrt.graphs.program_inputs import output_specs
from portrt.runtime.op import register
from portrt.torch_internals.programs import positional_call_graph

_STORED = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)


def assemble(
    plan: Plan,
    image: torch.Tensor | None,
    engines: Mapping[str, Sequence[Engine]],
    policy: Mapping[str, Any],
    *,
    with_sources: bool = True,
    first: Mapping[str, Any] | None = None,
    positional_weights: Collection[str] | None = None,
) -> ExportedProgram:
    """Assemble the compiled program.

    Args:
        plan: The plan; its graph is modified in place.
        image: The weights image of all blocks, or None if no block has weights.
        engines: Block name -> its engines, in order of preference.
        policy: Policy that is stored in the program.
        with_sources: Whether to store the blocks before conversion; False for prebuilt engines
            without a source.
        first: Further fields of the manifest of the first block.
        positional_weights: Placeholders of weights, of a program with the calling convention of a
            block: tensors in, a tuple of tensors out. Those that only blocks use are dropped.
    """
    register()
    graph = plan.graph_module.graph
    blobs = _Blobs(graph, image)
    calls = {
        node.target: (site, node)
        for site in subgraph_sites(plan.graph_module)
        for node in site.module.graph.nodes
        if node.op == "call_module"
    }
    for block in plan.blocks:
        source = archive_of(block.program) if with_sources else None
        site, call = calls[block.name]
        _replace_call(site, call, block, source, engines[block.name], blobs, policy, first or {})
        first = None
        delattr(site.module, block.name)
    for site in subgraph_sites(plan.graph_module):
        site.module.recompile()
    return _program(plan, blobs, positional_weights)


class _Blobs:
    """The constants that are added to the program, and their placeholders."""

    def __init__(self, graph: torch.fx.Graph, image: torch.Tensor | None) -> None:
        self._graph = graph
        self._first_input = next(iter(graph.nodes))
        self.constants: dict[str, torch.Tensor] = {}
        self.specs: list[InputSpec] = []
        self._fake_mode = torch_internals.fake_mode_of(graph)
        self.weights = None if image is None else self.add("portrt_weights", image)
        self.weights_entry = {} if image is None else Blob.of(0, image.numpy()).to_json()

    def add(self, name: str, data: torch.Tensor) -> torch.fx.Node:
        """Add a placeholder for `data`, before all others."""
        with self._graph.inserting_before(self._first_input):
            node = self._graph.placeholder(f"c_{name}")
        node.meta["val"] = self._fake_mode.from_tensor(data, static_shapes=True)
        self.constants[name] = data
        self.specs.append(InputSpec(InputKind.CONSTANT_TENSOR, TensorArgument(node.name), name))
        return node


def _replace_call(
    site: SubgraphSite,
    call: torch.fx.Node,
    block: Block,
    source: bytes | None,
    engines: Sequence[Engine],
    blobs: _Blobs,
    policy: Mapping[str, Any],
    more: Mapping[str, Any],
) -> None:
    nodes: list[torch.fx.Node] = []
    has_weights = bool(block.weights)
    if has_weights:
        assert blobs.weights is not None
        nodes.append(blobs.weights)

    def add(label: str, data: bytes) -> None:
        nodes.append(blobs.add(f"portrt_{block.name}_{label}", _tensor_from_bytes(data)))

    source_entry = None
    if source is not None:
        source_entry = Blob.of(len(nodes), source).to_json()
        add("source", source)
    engine_entries = []
    for index, engine in enumerate(engines):
        spec, datas = engine.stored(len(nodes))
        parts = engine.parts.engines if engine.parts else ()
        for part, data in zip(("", *(f"_{name}" for name in parts)), datas, strict=True):
            add(f"engine_{index}_{engine.backend}{part}", data)
        engine_entries.append(spec.to_json())
    text = manifests.compose(
        name=block.name,
        producer={"portrt": _own_version(), "torch": str(torch.__version__)},
        inputs=[spec.to_json() for spec in block.inputs],
        outputs=[spec.to_json() for spec in block.outputs],
        weights=blobs.weights_entry if has_weights else None,
        source=source_entry,
        source_weights=list(block.weights),
        node_count=block.node_count,
        engines=engine_entries,
        policy=dict(policy),
        **more,
        blob_count=len(nodes),
    )
    manifests.decode(text)  # checks that it can be read
    call.op = "call_function"
    call.target = torch.ops.portrt.execute_engine.default
    call.args = (list(call.args), [add_operand(site, node) for node in nodes], text)
    call.meta["val"] = list(call.meta["val"])


def archive_of(program: ExportedProgram) -> bytes:
    """Serialize a program without weights as a torch.export archive with every device CPU."""
    from torch.export.passes import move_to_device_pass

    program = move_to_device_pass(program, "cpu")
    buffer = io.BytesIO()
    torch_internals.save_program(program, buffer)
    return buffer.getvalue()


def _tensor_from_bytes(data: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _own_version() -> str:
    return metadata.version("portrt")


def _program(
    plan: Plan, blobs: _Blobs, positional_weights: Collection[str] | None
) -> ExportedProgram:
    """Remove unused nodes and tensors, and create a program from graph, signature and tensors."""
    old, graph = plan.program, plan.graph_module.graph
    for node in reversed(list(graph.nodes)):
        if torch_internals.is_symbolic_call(node) and node.op == "call_function" and not node.users:
            graph.erase_node(node)
    by_name = {node.name: node for node in graph.nodes if node.op == "placeholder"}
    specs = []
    # Mutated buffers and parameters are kept even if nothing reads them.
    mutated = {*old.graph_signature.buffers_to_mutate.values()}
    mutated |= {*old.graph_signature.parameters_to_mutate.values()}
    for spec in old.graph_signature.input_specs:
        is_weight = spec.kind in _STORED or spec.arg.name in (positional_weights or ())
        unused = is_weight and not by_name[spec.arg.name].users
        if unused and spec.target not in mutated:
            graph.erase_node(by_name[spec.arg.name])
        else:
            specs.append(spec)
    specs = blobs.specs + specs
    kept = {spec.target for spec in specs if spec.target is not None}
    signature = ExportGraphSignature(specs, output_specs(old, graph))
    plan.graph_module.recompile()
    constants = {k: v for k, v in old.constants.items() if k in kept}
    program = torch_internals.program_from_graph(
        old,
        plan.graph_module,
        signature,
        {k: v for k, v in old.state_dict.items() if k in kept},
        {**constants, **blobs.constants},
        None if positional_weights is None else positional_call_graph(signature),
    )
    # Data-dependent sizes that occur only inside engines have no symbol in the graph any more.
    nodes = nested.all_nodes(plan.graph_module)
    seen = {s for node in nodes for s in data_sizes.symbols_of(node.meta.get("val"))}
    ranges = {
        symbol: bounds
        for symbol, bounds in old.range_constraints.items()
        if symbol in seen or not torch_internals.is_unbacked(symbol)
    }
    return torch_internals.with_ranges(program, ranges)
