"""Edits of the ONNX model for ONNX Runtime."""
