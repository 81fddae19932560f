"""Rewrite rules of the ONNX model for the parsers of TensorRT and TensorRT-RTX.

Each rule replaces a node that a parser refuses by equivalent nodes. ONNX Runtime does not see them.
A rule is a class on onnxscript's rewriter, in the file of its family; its `refusal` is the parser's
error message that it works around. `RULES` of a file lists its rules.

The parser of TensorRT 8.6 reads opset 17 at most. Models of that opset are not rewritten: they have
neither Bitwise operators nor Col2Im, and the rules write operators of opset 18.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from portrt.compiler.convert.onnx_from_block import OnnxModel

if TYPE_CHECKING:
    import onnx_ir as ir

    from portrt.compiler.backends.tensorrt.rewrites.rule import Rule

logger = logging.getLogger(__name__)

_OLDEST_OPSET = 18
# Metadata key under which onnxscript stores the rule that made a node.
_RULE_NAME = "pkg.onnxscript.rewriter.rule_name"


def rules() -> tuple[type[Rule], ...]:
    """Return all rules. A function, so that onnxscript is imported only to convert a model."""
    from portrt.compiler.backends.tensorrt.rewrites import (
        bitwise,
        eye_like,
        fold,
        integers,
        large_pool,
        layer_norm,
        max_pool,
        scatter_reduction,
        shifts,
    )

    families = (
        bitwise,
        eye_like,
        fold,
        layer_norm,
        max_pool,
        large_pool,
        scatter_reduction,
        shifts,
        integers,
    )
    return tuple(rule for family in families for rule in family.RULES)


def rewritten(model: OnnxModel, library: str, shapes: Mapping[str, Sequence[int]]) -> OnnxModel:
    """Replace the nodes that the parser of a library refuses.

    Args:
        model: Not modified; returned as it is if no rule applies.
        library: "tensorrt" or "tensorrt_rtx".
        shapes: Input -> its largest shape. Rules that need more memory than the node apply only if
            these bound the sizes.
    """
    import onnx
    import onnx_ir as ir
    from onnx_ir.passes.common import RemoveUnusedNodesPass
    from onnxscript.rewriter import RewriteRuleSet

    if model.opset < _OLDEST_OPSET:
        return model
    rewriting = ir.from_proto(onnx.load_model_from_string(model.data))
    largest = {
        str(size): maximum
        for value in rewriting.graph.inputs
        for size, maximum in zip(value.shape or (), shapes[value.name or ""], strict=True)
    }
    known = {node.name for node in rewriting.graph.all_nodes()}
    chosen = [rule.rule(largest) for rule in rules() if library in rule.libraries]
    count = RewriteRuleSet(chosen).apply_to_model(rewriting)
    if not count:
        return model
    RemoveUnusedNodesPass()(rewriting)
    _name_new_nodes(rewriting, known)
    logger.info("rewrote %d ONNX nodes for the parser of %s", count, library)
    data: bytes = ir.to_proto(rewriting).SerializeToString()
    return dataclasses.replace(model, data=data, nodes=len(rewriting.graph))


def _name_new_nodes(model: ir.Model, known: Collection[str | None]) -> None:
    """Name new nodes after the operator call of the node that they replace, see `origins`."""
    for index, node in enumerate(model.graph.all_nodes()):
        origin = node.metadata_props.get("torch_node")
        node.metadata_props.pop(_RULE_NAME, None)
        if node.name not in known:
            owner = f"node_{origin}" if origin else "onnx"
            node.name = f"{owner}.{node.op_type}_rewritten_{index}"
