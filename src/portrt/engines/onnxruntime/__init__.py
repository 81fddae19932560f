"""Run side of ONNX Runtime."""
