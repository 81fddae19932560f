"""convert: translate a Block to an ONNX model by torch.onnx, which has the table of converters."""

from portrt.compiler.convert.onnx_from_block import OnnxModel, onnx_from_block, translation
from portrt.format.onnx_wire import WEIGHTS_LOCATION
from portrt.torch_internals import NEWEST_OPSET

__all__ = ["NEWEST_OPSET", "WEIGHTS_LOCATION", "OnnxModel", "onnx_from_block", "translation"]
