"""Build side of ONNX Runtime."""
