"""One block of a loaded program: checks inputs, remembers what was chosen, runs it."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import torch

from portrt.errors import InputError
from portrt.package import expr
from portrt.package.manifest import (
    Dimension,
    InputSpec,
    check_blob_sizes,
    check_digest,
    decode,
)
from portrt.package.weights import WeightsImage
from portrt.runtime.policy import CONTEXT, Policy, effective
from portrt.runtime.select import Selection, select

_MOST_KNOWN_SHAPES = 1024

Shapes = tuple[tuple[int, ...], ...]


class LoadedBlock:
    """The state behind one `execute_engine` call of one program.

    Args:
        manifest: As the call has it.
        blobs: As the call has them; on any device.

    Raises:
        PackageError: The manifest is malformed or does not describe these blobs.
    """

    def __init__(self, manifest: str, blobs: Sequence[torch.Tensor]) -> None:
        self.text = manifest
        self.manifest = decode(manifest)
        check_blob_sizes(self.manifest, [_byte_size(blob) for blob in blobs])
        self._blobs = [blob.detach().cpu().contiguous() for blob in blobs]
        entry = self.manifest.weights
        self._weights = None if entry is None else WeightsImage(self._blobs[entry.index])
        self._dtypes = [getattr(torch, spec.dtype) for spec in self.manifest.inputs]
        self._known_shapes: dict[tuple[torch.Size, ...], Shapes] = {}
        self._selections: dict[tuple[torch.device, Policy | None], Selection] = {}
        self._lock = threading.Lock()

    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Run on checked inputs; see `execute_engine`."""
        shapes = self._known_shapes.get(tuple([tensor.shape for tensor in inputs]))
        if shapes is None:
            shapes = self.output_shapes(inputs)
        if [tensor.dtype for tensor in inputs] != self._dtypes:
            self._refuse_dtypes(inputs)
        device = inputs[0].device
        for tensor in inputs:
            if tensor.device != device:
                self._refuse_devices(inputs)
        selection = self._selections.get((device, CONTEXT.get()))
        if selection is None:
            selection = self.selection(device)
        return selection.session.run(inputs, shapes)

    def selection(self, device: torch.device) -> Selection:
        """What runs this block on a device under the policy in force; opened at most once."""
        context = CONTEXT.get()
        with self._lock:
            found = self._selections.get((device, context))
            if found is None:
                policy = effective(self.manifest.policy, context)
                found = select(self.manifest, self._blobs, self._weights, device, policy)
                self._selections[device, context] = found
        return found

    @property
    def selections(self) -> dict[str, Selection]:
        """Device -> what was chosen there, latest policy last."""
        return {str(device): found for (device, _), found in self._selections.items()}

    def verify(self) -> None:
        """Check the digests of all blobs, the weights' included.

        Raises:
            PackageError: One of them differs.
        """
        manifest = self.manifest
        labelled = [("the weights", manifest.weights), ("the source", manifest.source)]
        labelled += [(f"engine {item.backend}", item.data) for item in manifest.engines]
        for label, blob in labelled:
            if blob is not None:
                check_digest(self._blobs[blob.index].numpy(), blob, f"{label} of {manifest.name}")

    def output_shapes(self, inputs: Sequence[torch.Tensor]) -> Shapes:
        """Check the shapes of the inputs, and say the shapes of the outputs.

        Raises:
            InputError: A number, rank or size that the block does not take.
        """
        specs = self.manifest.inputs
        if len(inputs) != len(specs):
            raise InputError(
                f"{self.manifest.name} was given {len(inputs)} inputs",
                f"{len(specs)}: {', '.join(spec.name for spec in specs)}",
                "call the program as it was exported",
            )
        for spec, tensor in zip(specs, inputs, strict=True):
            if len(tensor.shape) != len(spec.shape):
                raise _shape_error(spec, tensor, f"rank {len(spec.shape)}")

        def size(index: int, axis: int) -> int:
            return int(inputs[index].shape[axis])

        for spec, tensor in zip(specs, inputs, strict=True):
            for axis, (wanted, found) in enumerate(zip(spec.shape, tensor.shape, strict=True)):
                if isinstance(wanted, Dimension):
                    if found < wanted.least or (wanted.most is not None and found > wanted.most):
                        most = "any size" if wanted.most is None else str(wanted.most)
                        raise _shape_error(
                            spec, tensor, f"dimension {axis} from {wanted.least} to {most}"
                        )
                elif (exact := expr.evaluate(wanted, size)) != found:
                    raise _shape_error(spec, tensor, f"{exact} in dimension {axis}")
        shapes = tuple(
            tuple(int(expr.evaluate(part, size)) for part in spec.shape)
            for spec in self.manifest.outputs
        )
        if len(self._known_shapes) >= _MOST_KNOWN_SHAPES:
            self._known_shapes.clear()
        self._known_shapes[tuple(tensor.shape for tensor in inputs)] = shapes
        return shapes

    def _refuse_dtypes(self, inputs: Sequence[torch.Tensor]) -> None:
        for spec, tensor, wanted in zip(self.manifest.inputs, inputs, self._dtypes, strict=True):
            if tensor.dtype != wanted:
                raise InputError(
                    f"input {spec.name!r} of {self.manifest.name} is {tensor.dtype}",
                    f"{wanted}, as the program was compiled",
                    f"convert it: {spec.name}.to({wanted})",
                )

    def _refuse_devices(self, inputs: Sequence[torch.Tensor]) -> None:
        listed = ", ".join(
            f"{spec.name} on {tensor.device}"
            for spec, tensor in zip(self.manifest.inputs, inputs, strict=True)
        )
        raise InputError(
            f"the inputs of {self.manifest.name} are on several devices: {listed}",
            "all inputs on one device",
            "move them with .to(device)",
        )


def _byte_size(blob: torch.Tensor) -> int:
    """Number of bytes, or -1 for a tensor that is no blob, which equals no size."""
    return blob.numel() if blob.dtype == torch.uint8 and blob.dim() == 1 else -1


def _shape_error(spec: InputSpec, tensor: torch.Tensor, wanted: str) -> InputError:
    return InputError(
        f"input {spec.name!r} has shape {tuple(tensor.shape)}",
        wanted,
        "give a tensor within the shapes that the program was compiled for, or compile it again "
        "with a wider range",
    )
