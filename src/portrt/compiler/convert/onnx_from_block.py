"""Translate a block's program to an ONNX model whose weights stay in the weights image."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import ExportGraphSignature, InputKind, InputSpec

from portrt import torch_internals
from portrt.compiler.convert.changeable_weights import (
    SMALL_WEIGHT_BYTES,
    DeduplicateOthers,
    id_of,
    small_weights,
)
from portrt.compiler.convert.exact_doubles import exact_doubles, signed_zeros
from portrt.compiler.convert.opset_17 import to_opset_17
from portrt.compiler.convert.origins import Origin, decomposed_from, name_after_origins
from portrt.compiler.convert.reshape_zeros import zeros_as_sizes
from portrt.compiler.convert.size_arithmetic import exact_sizes
from portrt.compiler.convert.translations import Translations, with_built_in
from portrt.compiler.convert.wrong_translations import wrong_translation
from portrt.compiler.plan import Block
from portrt.errors import ConvertError
from portrt.format.onnx_wire import WEIGHTS_LOCATION
from portrt.graphs import nested
from portrt.graphs.recurrent import keep_recurrent_layers, run_decompositions
from portrt.torch_internals import NEWEST_OPSET
from portrt.torch_internals.programs import positional_call_graph
from portrt.verdict import YES, Verdict
from portrt.weights import WeightsImage

if TYPE_CHECKING:
    import onnx_ir

logger = logging.getLogger(__name__)

_REMEDY = "pass a custom translation in translations, see docs/extending.md"

# The oldest opset that torch.onnx writes.
_OLDEST_WRITTEN = 18

# Operators on floats that are folded: they move numbers, or round as IEEE 754 has it. Of others the
# last digits of numpy are not PyTorch's, and ONNX's evaluator takes attributes in float32.
_FOLDED = frozenset(
    {
        *(
            "Cast",
            "CastLike",
            "Concat",
            "ConstantOfShape",
            "Expand",
            "Flatten",
            "Gather",
            "Identity",
        ),
        *(
            "Reshape",
            "Shape",
            "Size",
            "Slice",
            "Split",
            "Squeeze",
            "Tile",
            "Transpose",
            "Unsqueeze",
        ),
        *("Abs", "Add", "Ceil", "Div", "Equal", "Floor", "Greater", "GreaterOrEqual", "IsInf"),
        *("IsNaN", "Less", "LessOrEqual", "Mul", "Neg", "Not", "Sqrt", "Sub", "Where"),
        *("If", "Loop", "SequenceConstruct", "SequenceAt", "SplitToSequence", "ConcatFromSequence"),
    }
)


@dataclass(frozen=True)
class OnnxModel:
    """A serialized ONNX model.

    Attributes:
        data: ModelProto bytes. Initializers larger than 128 bytes that are weights of the program
            are external: location `WEIGHTS_LOCATION`, offset and length in the weights image, and
            named as in the image.
        weights: Names of the external initializers.
        opset: Version of the default operator set.
        nodes: Number of ONNX nodes.
        origins: Name of an ONNX node -> the operator call that it was translated from.
    """

    data: bytes
    weights: tuple[str, ...]
    opset: int
    nodes: int
    origins: Mapping[str, Origin] = field(default_factory=dict)


def translation(
    node: torch.fx.Node, opset: int = NEWEST_OPSET, translations: Translations = ()
) -> Verdict:
    """Return whether torch.onnx, or a user translation, translates this node correctly."""
    if any(node.target is target for target, _ in translations):
        return YES
    wrong = wrong_translation(node)
    if wrong:
        return Verdict.no("no_translation", wrong, _REMEDY)
    if torch_internals.has_onnx_translation(node, opset, with_built_in()):
        return YES
    return Verdict.no("no_translation", "torch.onnx has no translation for it", _REMEDY)


def onnx_from_block(
    block: Block,
    tensors: Mapping[str, torch.Tensor],
    image: WeightsImage,
    opset: int,
    translations: Translations = (),
    small_apart: bool = False,
) -> OnnxModel:
    """Translate a block.

    Args:
        block: The block; not modified.
        tensors: The program's weights by name.
        image: The weights image that holds these weights.
        opset: ONNX operator set to write, 17 to `NEWEST_OPSET`. Operators that need a newer one
            are decomposed.
        translations: User translations; they take precedence over those of torch.onnx.
        small_apart: Whether floating-point weights that may change stay out of the model even if
            they are small.

    Raises:
        ConvertError: torch.onnx failed; its error is the cause.
    """
    from portrt.compiler.convert.output_types import round_outputs

    started = time.perf_counter()
    weights = {name: tensors[name] for name in block.weights}
    program = undecomposed = _with_weights(block, weights)
    written = max(opset, _OLDEST_WRITTEN)
    known = with_built_in(translations)
    try:
        if not _is_translated(program, written, known):
            table = torch_internals.onnx_decompositions(written, known)
            with torch_internals.oblivious_to_size_one():
                program = run_decompositions(program, table)
        # The exporter runs the graph on fake tensors that share the symbols of the whole program: a
        # comparison of sizes in there would add a guard to the program.
        with (
            keep_recurrent_layers(),
            torch_internals.unguarded(),
            torch_internals.oblivious_to_size_one(),
        ):
            model = torch_internals.onnx_ir_from_program(
                program, written, known, lambda graph: _prepare(graph, block.program)
            )
        _name_inputs(model, block)  # decomposition renames them
        changeable = {id(weights[name]) for name in block.changeable}
        apart = (
            {id(weights[name]) for name in small_weights(block, weights)} if small_apart else set()
        )
        _simplify(model, changeable, apart)
        _name_inputs(model, block)  # and so does OutputFixPass where an input is an output
        round_outputs(model, [spec.dtype for spec in block.outputs])
        if opset < written:
            to_opset_17(model)
    except Exception as err:
        raise ConvertError(
            f"torch.onnx cannot translate {block.name} at opset {opset}: {_innermost(err)}",
            "operators that torch.onnx translates",
            "name the operator in torch_executed_ops to keep it in PyTorch",
            node=_node_name(program, err, decomposed=program is not undecomposed),
        ) from err
    external = _externalize(model, weights, image, apart)
    is_decomposed = program is not undecomposed
    origins = name_after_origins(model, program, block.program, decomposed=is_decomposed)
    data = _serialize(model, origins)
    logger.info(
        "converted %s to %d ONNX nodes (opset %d) in %.2f s",
        block.name,
        len(model.graph),
        opset,
        time.perf_counter() - started,
    )
    return OnnxModel(data, external, opset, len(model.graph), origins)


def _prepare(graph_module: torch.fx.GraphModule, program: ExportedProgram) -> None:
    """Rewrite what torch.onnx translates inexactly."""
    exact_doubles(graph_module)
    signed_zeros(graph_module)
    zeros_as_sizes(graph_module, program.range_constraints)
    exact_sizes(graph_module, program.range_constraints)


def _name_inputs(model: onnx_ir.Model, block: Block) -> None:
    """Give the model's inputs the names that they have in the block."""
    wanted = [spec.name for spec in block.inputs]
    for value in model.graph.outputs:
        if value.name in wanted and not value.is_graph_input():
            value.name = f"{value.name}_out"
    for value, name in zip(model.graph.inputs, wanted, strict=True):
        value.name = name


def _is_translated(
    program: ExportedProgram, opset: int, translations: torch_internals.Translations
) -> bool:
    return all(
        torch_internals.has_onnx_translation(node, opset, translations)
        for node in nested.all_nodes(program.graph_module)
        if nested.is_operator(node)
    )


def _with_weights(block: Block, weights: Mapping[str, torch.Tensor]) -> ExportedProgram:
    """Return the block's program on a copied graph, with its trailing inputs as buffers."""
    program = block.program
    specs = list(program.graph_signature.input_specs)
    first_weight = len(specs) - len(block.weights)
    for index, name in enumerate(block.weights, first_weight):
        specs[index] = InputSpec(InputKind.BUFFER, specs[index].arg, name, persistent=True)
    signature = ExportGraphSignature(specs, list(program.graph_signature.output_specs))
    module = nested.copied(program.graph_module)
    call_graph = positional_call_graph(signature)
    return torch_internals.program_from_graph(program, module, signature, weights, {}, call_graph)


def _simplify(model: onnx_ir.Model, changeable: Collection[int], apart: Collection[int]) -> None:
    """Fold constants that do not depend on weights, and remove unused nodes.

    Not `ONNXProgram.optimize()`: it folds weights into new ones (transposed, or multiplied by a
    batch norm), which would be stored beside the originals. The engine libraries fold them in
    memory, when an engine is opened or built.

    Args:
        model: The model; changed in place.
        changeable: Ids of weights that are not merged with others of the same numbers.
        apart: Ids of weights that are not folded.
    """
    import onnx_ir.passes.common as common
    from onnxscript import optimizer

    def should_fold(node: onnx_ir.Node) -> bool | None:
        for value in node.inputs:
            if value is None or not value.is_initializer():
                continue
            if _is_large(value.const_value) or id_of(value) in apart:
                return False
        return None if node.op_type in _FOLDED or not _has_floats(node) else False

    common.InlinePass()(model)
    optimizer.fold_constants(model, onnx_shape_inference=True, should_fold=should_fold)
    for clean_up in (
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call]
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.LiftSubgraphInitializersToMainGraphPass(),
        DeduplicateOthers(changeable),
        common.CommonSubexpressionEliminationPass(),
        common.OutputFixPass(),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedOpsetsPass(),
    ):
        clean_up(model)


def _has_floats(node: onnx_ir.Node) -> bool:
    return any(
        value is not None and value.dtype is not None and value.dtype.is_floating_point()
        for value in (*node.inputs, *node.outputs)
    )


def _is_large(value: onnx_ir.TensorProtocol | None) -> bool:
    return value is not None and value.nbytes > SMALL_WEIGHT_BYTES


def _externalize(
    model: onnx_ir.Model,
    weights: Mapping[str, torch.Tensor],
    image: WeightsImage,
    apart: Collection[int],
) -> tuple[str, ...]:
    """Make the initializers that are weights refer to the image, and return their names."""
    import onnx_ir

    names = {id(tensor): name for name, tensor in weights.items()}
    external = []
    for value in list(model.graph.initializers.values()):
        tensor = torch_internals.torch_tensor_of(value.const_value)
        name = None if tensor is None else names.get(id(tensor))
        if name is None or value.const_value is None:
            continue
        _, shape, offset, length = image.entry(name)
        if length <= SMALL_WEIGHT_BYTES and id(tensor) not in apart:
            continue
        value.const_value = onnx_ir.ExternalTensor(
            WEIGHTS_LOCATION,
            offset,
            length,
            value.const_value.dtype,
            shape=onnx_ir.Shape(shape),
            name=name,
            base_dir="",
        )
        value.name = name
        external.append(name)
    return tuple(external)


def _serialize(model: onnx_ir.Model, origins: Mapping[str, Origin]) -> bytes:
    import onnx_ir

    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    for node in model.graph.all_nodes():
        # torch.onnx stores stack traces and class hierarchies: larger than the graph, and with
        # paths of the user's machine.
        node.metadata_props.clear()
        origin = origins.get(node.name or "")
        if origin is not None:
            node.metadata_props["torch_node"] = origin.node
    for value in [*model.graph.inputs, *model.graph.initializers.values()]:
        value.metadata_props.clear()
    data: bytes = onnx_ir.to_proto(model).SerializeToString()
    return data


def _innermost(err: BaseException) -> str:
    while err.__cause__ is not None:
        err = err.__cause__
    text = str(err).strip().splitlines()
    return text[0] if text else type(err).__name__


def _node_name(
    program: ExportedProgram, err: BaseException | None, *, decomposed: bool
) -> str | None:
    """Return the block's node that an exporter error names ("... translating node %name : ...")."""
    nodes = {node.name: node for node in nested.all_nodes(program.graph_module)}
    while err is not None:
        _, found, rest = str(err).partition("translating node %")
        node = nodes.get(rest.split(" ", 1)[0]) if found else None
        if node is not None:
            return (decomposed_from(node) or None) if decomposed else node.name
        err = err.__cause__
    return None
