"""Names of Torch-TensorRT that portrt does not have: using one is an error that names the way."""

from __future__ import annotations

from portrt.errors import PortrtError


class MissingNameError(PortrtError, AttributeError):
    """A name of Torch-TensorRT that portrt does not have."""


# Name -> the way here.
MISSING = {
    "ts": "compile the torch.nn.Module; TS2EPConverter makes an ExportedProgram of a ScriptModule",
    "fx": "compile the torch.nn.Module, with the default ir",
    "distributed": "collectives stay in PyTorch, between engines: compile the model of each rank",
    "executorch": "ExecuTorch has its own delegates; portrt.files.extract gives the ONNX model",
    "kernels": "a custom operator with a translation, see docs/extending.md",
    "dynamo.conversion": "translations={operator: function} of compile, see docs/extending.md",
    "dynamo.lowering": "passes=[function] of compile, see docs/extending.md",
    "dynamo.partitioning": "torch_executed_ops and torch_executed_modules of compile",
    "dynamo.backend": "torch.compile(model, backend='torch_tensorrt')",
    "dynamo.CompilationSettings": "the options of compile, or portrt.Settings",
    "runtime.TorchTensorRTModule": "portrt.from_plan makes a program of a serialized engine",
    "runtime.RuntimeCache": "TensorRT-RTX compiles its kernels anew in each process",
}


def missing(name: str) -> AttributeError:
    """Return the error for a name, or Python's where Torch-TensorRT has no such name either."""
    if name not in MISSING:
        module, _, last = f"portrt.torch_tensorrt.{name}".rpartition(".")
        return AttributeError(f"module {module!r} has no attribute {last!r}")
    return MissingNameError(
        f"portrt has no torch_tensorrt.{name}",
        "a name of the table in docs/torch_tensorrt.md",
        MISSING[name],
    )
