"""Operator calls that torch.onnx silently translates to something else.

Found with torch 2.13 and onnxscript 0.7 by comparing every operator's sample inputs with eager
PyTorch. Most of these calls are decomposed before, in `lower/decompositions`. If torch cannot
decompose a model, or there is no exact decomposition, they stay in PyTorch.
tests/compiler/convert/test_convert.py fails when torch.onnx fixes one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from portrt import torch_internals
from portrt.compiler.convert.translations import with_built_in
from portrt.graphs import symbols

aten = torch.ops.aten


def _has_divisor(given: Mapping[str, Any]) -> str:
    ignored = given.get("divisor_override") is not None
    return "torch.onnx ignores its divisor_override" if ignored else ""


def _has_scales(given: Mapping[str, Any]) -> str:
    scales = [given.get(name) for name in ("scale_factors", "scales_h", "scales_w")]
    if given.get("align_corners"):
        return "torch.onnx does not align the corners of antialiased images"
    if any(type(size) is int and size == 1 for size in given.get("output_size") or ()):
        return "torch.onnx takes the first pixel, not the middle, for an antialiased image of one"
    given_one = any(scale is not None for scale in scales)
    return "torch.onnx ignores its scale factors" if given_one else ""


def _is_mean(given: Mapping[str, Any]) -> str:
    return 'torch.onnx translates reduce="mean" to a sum' if given.get("reduce") == "mean" else ""


def _has_input_scale(given: Mapping[str, Any]) -> str:
    return "torch.onnx ignores its input_scale" if given.get("input_scale", 1) != 1 else ""


def _has_windows_of_padding(rank: int) -> Callable[[Mapping[str, Any]], str]:
    """Judge max pooling: ONNX does not define the maximum of no elements, PyTorch has -infinity.

    The first element of a window at or after 0 is below the dilation, and the last window starts
    in the input, so that only sizes below the dilation have windows without an element.

    Args:
        rank: Number of pooled dimensions; a list of one number counts for each.
    """

    def judged(given: Mapping[str, Any]) -> str:
        x = given.get("self", given.get("input"))
        kernel = list(given.get("kernel_size") or ())
        lists = [list(given.get(name) or ()) for name in ("stride", "padding", "dilation")]
        strides, pads, dilations = (
            (found or instead) * (rank if len(found or instead) == 1 else 1)
            for found, instead in zip(lists, (kernel, [0], [1]), strict=True)
        )
        sizes = x.meta["val"].shape[-rank:] if isinstance(x, torch.fx.Node) else ()
        for size, stride, pad, dilation in zip(sizes, strides, pads, dilations, strict=False):
            before = range(-pad, 0, stride)
            if any(start % dilation >= symbols.smallest_in_engine(size) for start in before):
                return "ONNX does not define the maximum of a window that lies wholly in padding"
        return ""

    return judged


def _always(reason: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda _: reason


_ATAN2 = "torch.onnx returns -pi for pi, and 0 for NaN"
_ANY = "torch.onnx returns True for any() of an empty tensor"
_BATCH_NORM = "torch.onnx translates batch norm in training mode to inference"

_RULES: Mapping[Any, Callable[[Mapping[str, Any]], str]] = {
    aten.atan2.default: _always(_ATAN2),
    aten.any.default: _always(_ANY),
    aten.any.dim: _always(_ANY),
    aten.any.dims: _always(_ANY),
    aten.copy.default: _always("torch.onnx does not expand the source of a copy"),
    aten.avg_pool2d.default: _has_divisor,
    aten.avg_pool3d.default: _has_divisor,
    aten.max_pool1d.default: _has_windows_of_padding(1),
    aten.max_pool1d_with_indices.default: _has_windows_of_padding(1),
    aten.max_pool2d.default: _has_windows_of_padding(2),
    aten.max_pool2d_with_indices.default: _has_windows_of_padding(2),
    aten.max_pool3d.default: _has_windows_of_padding(3),
    aten.max_pool3d_with_indices.default: _has_windows_of_padding(3),
    aten.elu.default: _has_input_scale,
    aten.scatter_reduce.two: _is_mean,
    aten._native_batch_norm_legit_functional.default: _always(_BATCH_NORM),
    aten._native_batch_norm_legit.default: _always(_BATCH_NORM),
    aten._upsample_bilinear2d_aa.default: _has_scales,
    aten._upsample_bilinear2d_aa.vec: _has_scales,
    aten._upsample_bicubic2d_aa.default: _has_scales,
    aten._upsample_bicubic2d_aa.vec: _has_scales,
}


def wrong_translation(node: torch.fx.Node) -> str:
    """Return what torch.onnx translates wrongly in this call, or ""."""
    if node.target is aten.empty_like.default and not all(map(_is_translated, node.users)):
        return "its values are undefined"  # the users in an engine do not read them
    rule = _RULES.get(node.target)
    if rule is None:
        return ""
    found = node.normalized_arguments(torch.nn.Module(), normalize_to_only_use_kwargs=True)
    return rule({} if found is None else found.kwargs)


def _is_translated(node: torch.fx.Node) -> bool:
    is_operator = isinstance(node.target, torch._ops.OpOverload)
    return is_operator and torch_internals.has_onnx_translation(
        node, torch_internals.NEWEST_OPSET, with_built_in()
    )
