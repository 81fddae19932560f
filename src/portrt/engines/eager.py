"""Runs the source of a block in PyTorch: the fallback, and the reference for every engine."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from portrt import torch_internals
from portrt.engines.base import LayerTime
from portrt.engines.device_weights import weight_on
from portrt.engines.outputs import own_outputs
from portrt.engines.torch_session import TorchSession
from portrt.errors import EngineError, LoadError, PackageError
from portrt.format.manifest import Signature
from portrt.weights import WeightsImage


class SourceSession(TorchSession):
    """The source of a block, on the device of its inputs.

    Args:
        signature: What the block takes and returns.
        source: Its source blob, whose digest was checked: a torch.export archive.
        source_weights: Names of the weights that the source takes after its inputs.
        weights: The weights of the program; moved to the device once.
        device: Where the inputs are.
        what: What the program is, for messages.

    Raises:
        PackageError: The source is not a program, or the weights it names are missing.
    """

    supports_layer_times = True

    def __init__(
        self,
        signature: Signature,
        source: torch.Tensor,
        source_weights: Sequence[str],
        weights: WeightsImage | None,
        device: torch.device,
        what: str = "the source",
    ) -> None:
        super().__init__(signature.name, device)
        self._label = f"{what} of {signature.name}"
        program = program_from_source(self._label, source)
        if device.type != "cpu":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, device)
        try:
            self._module = torch_internals.unchecked_module(program)
        except Exception as err:
            raise PackageError(
                f"{self._label} is no program that can be called: {err}",
                "a program as torch.export writes it",
                "get the file again from where it was made, or compile the model again",
            ) from err
        self._dtypes = [getattr(torch, spec.dtype) for spec in signature.outputs]
        self._image = weights  # its address must not be that of another image meanwhile
        self._weights = []
        for name in source_weights:
            assert weights is not None  # the manifest was checked for it
            self._weights.append(weight_on(weights, name, device))

    @property
    def module(self) -> torch.fx.GraphModule:
        """The source; it takes the inputs and the weights."""
        return self._module

    @property
    def weights(self) -> Sequence[torch.Tensor]:
        """The weights, on the device."""
        return self._weights

    def run(
        self, inputs: Sequence[torch.Tensor], shapes: Sequence[tuple[int, ...]]
    ) -> list[torch.Tensor]:
        taken = {tensor.untyped_storage().data_ptr() for tensor in (*inputs, *self._weights)}
        try:
            with torch.no_grad():
                results = self._module(*inputs, *self._weights)
        except EngineError:  # of an engine that the program calls
            raise
        except Exception as err:
            raise EngineError(
                f"{self._label} failed in PyTorch: {err}",
                "inputs for which the model itself runs",
                "run the uncompiled model on these inputs; if it works, report the model",
            ) from err
        return own_outputs(self._label, results, shapes, self._dtypes, taken)

    def layer_times(
        self, inputs: Sequence[torch.Tensor], shapes: Sequence[tuple[int, ...]], *, calls: int
    ) -> list[LayerTime]:
        """Time each node, run one by one."""
        from portrt.engines.node_times import WARM_UP, NodeTimes

        self.run(inputs, shapes)  # raises what a call would raise
        times = NodeTimes(self._module, self._device)
        with torch.no_grad():
            for call in range(WARM_UP + calls):
                if call == WARM_UP:
                    times.forget()
                times.run_once([*inputs, *self._weights])
        return times.layers()


def program_from_source(label: str, source: torch.Tensor) -> torch.export.ExportedProgram:
    """Load the program of a source blob, whose digest was checked.

    Args:
        label: What it is, for messages.
        source: A torch.export archive.

    Raises:
        PackageError: It would make torch do more than compute, or this version cannot read it.
    """
    # What judges a program is imported only where a source is read.
    from portrt.format.archive import MODEL, NestedArchive
    from portrt.format.program_check import check_program, operators_of

    try:
        data = bytearray(source.numpy())
        archive = NestedArchive(data, label)
        model = archive.json(MODEL)
        check_program(archive, model)
        return torch_internals.read_program(archive, data, operators_of(model), pickled=False)
    except Exception as err:
        fault = err.happened if isinstance(err, LoadError) else torch_internals.reading_fault(err)
        raise PackageError(
            f"{label} cannot be read by torch {torch.__version__}: {fault}",
            "a torch.export archive that this version of torch reads",
            "use the torch version that wrote the file, or a newer one",
        ) from err
