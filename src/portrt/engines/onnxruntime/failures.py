"""Errors for calls in which ONNX Runtime fails; imported by the first of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from portrt.errors import EngineError, InputError, PortrtError, first_line
from portrt.format.manifest import Signature

# The memory of outputs has the sizes that torch.export computed.
_OTHER_SIZES = "The output OrtValue provided for output"


def failure_of(err: Exception, signature: Signature, inputs: Sequence[torch.Tensor]) -> PortrtError:
    """Return InputError where a result has other sizes than in the program, else EngineError."""
    if _OTHER_SIZES not in str(err):
        return EngineError(
            f"ONNX Runtime failed in {signature.name}: {first_line(err)}",
            "inputs for which the model itself runs",
            "run the uncompiled model on these inputs; if it works, report the model",
        )
    listed = ", ".join(
        f"{spec.name} {tuple(tensor.shape)}"
        for spec, tensor in zip(signature.inputs, inputs, strict=True)
    )
    return InputError(
        f"with these inputs of {signature.name}, {listed}, a result has other sizes than those "
        "that torch.export computed",
        "sizes other than those that a warning of compile names",
        "give larger inputs, or compile the model again for a range of smaller sizes",
    )
