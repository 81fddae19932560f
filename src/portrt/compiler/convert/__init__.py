"""convert: Block -> ONNX model, by torch.onnx. portrt keeps no table of converters of its own."""

from portrt.compiler.convert.onnx_from_block import (
    WEIGHTS_LOCATION,
    OnnxModel,
    onnx_from_block,
    translation,
)
from portrt.torch_internals import NEWEST_OPSET

__all__ = ["NEWEST_OPSET", "WEIGHTS_LOCATION", "OnnxModel", "onnx_from_block", "translation"]
