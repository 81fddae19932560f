"""One block of a loaded program: checks inputs, remembers what was chosen, runs it."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Sequence

import torch

from portrt.engines.base import Session
from portrt.format.manifest import decode
from portrt.runtime.input_check import (
    Shapes,
    check_inputs,
    output_shapes,
    refuse_devices,
    refuse_dtypes,
)
from portrt.runtime.output_sizes import measured
from portrt.runtime.policy import CONTEXT, Policy, effective
from portrt.runtime.select import Selection, select
from portrt.runtime.stored_block import StoredBlock

_MAX_KNOWN_SHAPES = 1024

Run = Callable[[Sequence[torch.Tensor], Shapes], list[torch.Tensor]]


class LoadedBlock:
    """The state behind one `execute_engine` call of one program.

    Args:
        manifest: As the call has it.
        blobs: As the call has them; on any device.

    Attributes:
        text: The manifest as the call has it.
        stored: The same block as it is stored.
        signature: What the block takes and returns.

    Raises:
        PackageError: The manifest is malformed or does not describe these blobs.
    """

    def __init__(self, manifest: str, blobs: Sequence[torch.Tensor]) -> None:
        self.text = manifest
        self.stored = StoredBlock(decode(manifest), blobs)
        self.signature = self.stored.signature
        self._dtypes = [getattr(torch, spec.dtype) for spec in self.signature.inputs]
        self._known_shapes: dict[tuple[torch.Size, ...], Shapes] = {}
        self._selections: dict[tuple[torch.device, Policy | None], Selection] = {}
        self._sessions: dict[tuple[int, torch.device], Session] = {}
        # Of this block alone: others run and open meanwhile. Reentrant, because what is called
        # within (a warning's display, a log handler) may be the user's.
        self._lock = threading.RLock()

    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Run once; see `execute_engine`."""
        shapes = self._known_shapes.get(tuple([tensor.shape for tensor in inputs]))
        if shapes is None:
            shapes = self._new_shapes(inputs)
        if [tensor.dtype for tensor in inputs] != self._dtypes:
            refuse_dtypes(self.signature, inputs)
        device = inputs[0].device
        for tensor in inputs:
            if tensor.device != device:
                refuse_devices(self.signature, inputs)
        selection = self._selections.get((device, CONTEXT.get()))
        if selection is None:
            selection = self.selection(device)
        return selection.session.run(inputs, shapes)

    def prepared(self, inputs: Sequence[torch.Tensor]) -> tuple[Run, Shapes]:
        """What runs the block on inputs like these, under the policy in force, and its outputs'
        shapes: for calls that are known to fit.

        Raises:
            InputError: The inputs do not fit.
            NoUsableEngineError: Nothing may run the block here.
        """
        shapes = self._known_shapes.get(tuple([tensor.shape for tensor in inputs]))
        if shapes is None:
            shapes = self._new_shapes(inputs)
        return self.selection(inputs[0].device).session.run, shapes

    def _new_shapes(self, inputs: Sequence[torch.Tensor]) -> Shapes:
        check_inputs(self.signature, inputs)
        shapes = output_shapes(self.signature, inputs)
        if len(self._known_shapes) >= _MAX_KNOWN_SHAPES:
            self._known_shapes.clear()
        self._known_shapes[tuple(tensor.shape for tensor in inputs)] = shapes
        return shapes

    def selection(self, device: torch.device) -> Selection:
        """What runs this block on a device under the policy in force.

        An engine is opened at most once a device, whichever policies choose it.
        """
        context = CONTEXT.get()
        with self._lock:
            found = self._selections.get((device, context))
            if found is None:
                policy = effective(self.stored.manifest.policy, context)
                found = select(self.stored, device, policy, self._sessions)
                session = measured(found.session, self.signature)
                found = dataclasses.replace(found, session=session)
                self._selections[device, context] = found
        return found

    @property
    def selections(self) -> dict[str, Selection]:
        """Device -> what was chosen there, latest policy last."""
        with self._lock:
            return {str(device): found for (device, _), found in self._selections.items()}

    def verify(self) -> None:
        """Check the digests of all blobs, the weights' included.

        Raises:
            PackageError: One of them differs.
        """
        self.stored.verify()
