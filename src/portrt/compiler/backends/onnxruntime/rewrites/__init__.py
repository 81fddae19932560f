"""Rewrites of the ONNX model for ONNX Runtime; no other backend sees them."""
