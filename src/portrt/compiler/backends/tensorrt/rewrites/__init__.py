"""Rewrite rules of the ONNX model for the parsers of TensorRT and TensorRT-RTX.

Each rule takes a node that a parser refuses and puts other nodes with the same meaning in its
place. ONNX Runtime never sees them. A rule is a class on onnxscript's rewriter, in the file of its
family; it states the parser's words that it answers, and `RULES` is the list of them all.

The parser of TensorRT 8.6 reads opset 17 at most. Models of that opset are left as they are: they
have neither Bitwise operators nor Col2Im, and the rules write operators as opset 18 has them.
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
# Where onnxscript notes which rule made a node.
_RULE_NAME = "pkg.onnxscript.rewriter.rule_name"


def rules() -> tuple[type[Rule], ...]:
    """All of them. A function, as onnxscript is imported where a model is converted only."""
    from portrt.compiler.backends.tensorrt.rewrites import (
        bitwise,
        eye_like,
        fold,
        integers,
        layer_norm,
        max_pool,
        scatter_reduction,
    )

    families = (
        bitwise,
        eye_like,
        fold,
        layer_norm,
        max_pool,
        scatter_reduction,
        integers,
    )
    return tuple(rule for family in families for rule in family.RULES)


def rewritten(model: OnnxModel, library: str, shapes: Mapping[str, Sequence[int]]) -> OnnxModel:
    """The model with those nodes replaced that the parser of a library refuses.

    Args:
        model: Not changed; it is returned where no rule has anything to do.
        library: "tensorrt" or "tensorrt_rtx".
        shapes: Input -> its largest shape. Rules whose result takes more memory than the node are
            applied where the sizes are bounded by these.
    """
    import onnx
    import onnx_ir as ir
    from onnxscript.rewriter import RewriteRuleSet

    if model.opset < _OLDEST_OPSET:
        return model
    rewriting = ir.from_proto(onnx.load_model_from_string(model.data))
    largest = {
        str(size): most
        for value in rewriting.graph.inputs
        for size, most in zip(value.shape or (), shapes[value.name or ""], strict=True)
    }
    known = {node.name for node in rewriting.graph.all_nodes()}
    chosen = [rule.rule(largest) for rule in rules() if library in rule.libraries]
    count = RewriteRuleSet(chosen).apply_to_model(rewriting)
    if not count:
        return model
    _name_new_nodes(rewriting, known)
    logger.info("rewrote %d ONNX nodes for the parser of %s", count, library)
    data: bytes = ir.to_proto(rewriting).SerializeToString()
    return dataclasses.replace(model, data=data, nodes=len(rewriting.graph))


def _name_new_nodes(model: ir.Model, known: Collection[str | None]) -> None:
    """Name them as `convert/origins.py` does, after the call that the replaced node came from."""
    for index, node in enumerate(model.graph.all_nodes()):
        origin = node.metadata_props.get("torch_node")
        node.metadata_props.pop(_RULE_NAME, None)
        if node.name not in known:
            owner = f"node_{origin}" if origin else "onnx"
            node.name = f"{owner}.{node.op_type}_rewritten_{index}"
