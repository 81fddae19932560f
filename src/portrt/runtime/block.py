"""One block of a loaded program: checks inputs, caches the selected engine, runs it."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from portrt import forks
from portrt.engines.base import Session
from portrt.format.manifest import DataDependentSize, decode
from portrt.runtime.input_check import (
    Shapes,
    check_inputs,
    output_shapes,
    refuse_devices,
    refuse_dtypes,
)
from portrt.runtime.policy import CONTEXT, Policy, effective
from portrt.runtime.process_state import PROGRAM_RUNTIMES
from portrt.runtime.select import select
from portrt.runtime.selection import Selection, Sessions
from portrt.runtime.stored_block import StoredBlock

if TYPE_CHECKING:
    from portrt.engines.onnxruntime.cpp_session import CppSession

_MAX_KNOWN_SHAPES = 1024

Run = Callable[[Sequence[torch.Tensor], Shapes], list[torch.Tensor]]


class LoadedBlock:
    """The state behind one `execute_engine` call of one program.

    Args:
        manifest: Text of the manifest in the call.
        blobs: Blobs of the call, in order; on any device.

    Attributes:
        text: Text of the manifest in the call.
        stored: The block with its stored blobs.
        signature: Inputs and outputs of the block.
        in_cpp: Policy -> the C++ session of its selection for CPU tensors, if it has one.

    Raises:
        PackageError: The manifest is malformed or does not describe these blobs.
    """

    def __init__(self, manifest: str, blobs: Sequence[torch.Tensor]) -> None:
        self.text = manifest
        self.stored = StoredBlock(decode(manifest), blobs)
        self.stored.text = manifest
        self.signature = self.stored.signature
        self.in_cpp: dict[Policy | None, CppSession] = {}
        marked = (PROGRAM_RUNTIMES.get(id(blob)) for blob in blobs)
        self._runtime = next((found for found in marked if found), None)
        self._dtypes = [getattr(torch, spec.dtype) for spec in self.signature.inputs]
        self._known_shapes: dict[tuple[torch.Size, ...], Shapes] = {}
        self._selections: dict[tuple[torch.device, Policy | None], Selection] = {}
        self._sessions: Sessions = {}
        # One lock per block, so that other blocks run and open engines concurrently. Reentrant,
        # because user code (a warning's display, a log handler) may be called while it is held.
        self._lock = forks.renewed(threading.RLock())

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
        """Return the function that runs the block on inputs like these, and the output shapes.

        Later calls with the same shapes, dtypes, device and policy may call it without checks.

        Raises:
            InputError: The inputs do not match the signature.
            NoUsableEngineError: The policy allows nothing that can run the block here.
        """
        shapes = self._known_shapes.get(tuple([tensor.shape for tensor in inputs]))
        if shapes is None:
            shapes = self._new_shapes(inputs)
        else:  # of inputs of these shapes, perhaps of other dtypes
            check_inputs(self.signature, inputs)
        return self.selection(inputs[0].device).session.run, shapes

    def _new_shapes(self, inputs: Sequence[torch.Tensor]) -> Shapes:
        check_inputs(self.signature, inputs)
        shapes = output_shapes(self.signature, inputs)
        if len(self._known_shapes) >= _MAX_KNOWN_SHAPES:
            self._known_shapes.clear()
        self._known_shapes[tuple(tensor.shape for tensor in inputs)] = shapes
        return shapes

    def selection(self, device: torch.device) -> Selection:
        """Select what runs this block on a device under the policy in force; cached.

        An engine is opened at most once per device, whichever policies select it.
        """
        context = CONTEXT.get()
        with self._lock:
            found = self._selections.get((device, context))
            if found is None:
                policy = effective(self.stored.manifest.policy, context, self._runtime)
                found = select(self.stored, device, policy, self._sessions)
                found = dataclasses.replace(found, session=self._measured(found.session))
                self._selections[device, context] = found
                if found.in_cpp is not None and device.type == "cpu":
                    self.in_cpp[context] = found.in_cpp
        return found

    def _measured(self, session: Session) -> Session:
        sizes = [size for spec in self.signature.outputs for size in spec.shape]
        if not any(isinstance(size, DataDependentSize) for size in sizes):
            return session
        from portrt.runtime.output_sizes import MeasuredSession  # few blocks need it

        return MeasuredSession(session, self.signature)

    @property
    def selections(self) -> dict[str, Selection]:
        """Return device -> its selection, that of the latest policy."""
        with self._lock:
            return {str(device): found for (device, _), found in self._selections.items()}

    def verify(self) -> None:
        """Check the digests of all blobs, including the weights.

        Raises:
            PackageError: A digest differs.
        """
        self.stored.verify()
