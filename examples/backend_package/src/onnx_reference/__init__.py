"""The row of the backend `onnx_reference`. portrt reads it without importing torch."""

from __future__ import annotations

from portrt.targets.backends import BackendInfo

BACKEND = BackendInfo(
    name="onnx_reference",
    runtime="onnx_reference.runtime:ReferenceRuntime",
    builder="onnx_reference.builder:ReferenceBuilder",
    options="onnx_reference.options:ReferenceOptions",
    libraries=("onnx",),  # an engine's `requires` has the oldest version under this name
    version_rule="at_least",
    install="pip install onnx",
    documentation="https://onnx.ai/onnx/api/reference.html",
)
