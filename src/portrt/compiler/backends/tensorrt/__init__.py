"""Build side of TensorRT and TensorRT-RTX."""
