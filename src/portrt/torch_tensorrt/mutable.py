"""`MutableTorchTensorRTModule`: `portrt.MutableModule` with Torch-TensorRT's arguments."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from portrt.compiler.mutable_module import MutableModule
from portrt.errors import SettingsError
from portrt.torch_tensorrt.frontend import device_of
from portrt.torch_tensorrt.options import translated, warn


class MutableTorchTensorRTModule(MutableModule):
    """Runs a model compiled, from the first call on, and follows its weights and new sizes.

    Args:
        pytorch_model: The model, in eval mode when it is compiled. Not copied.
        device: As of `compile`; the model stays where it is.
        immutable_weights: No effect: engines follow the weights in any case.
        strict: Passed to `torch.export.export`.
        prefer_deferred_runtime_asserts_over_guards: No effect.
        weight_streaming_budget: No effect, with a warning.
        **kwargs: As those of `compile`.

    Raises:
        SettingsError: An option is unknown or cannot be had.
    """

    def __init__(
        self,
        pytorch_model: torch.nn.Module,
        *,
        device: Any = None,
        immutable_weights: bool = False,  # noqa: ARG002  (as there)
        strict: bool = False,
        prefer_deferred_runtime_asserts_over_guards: bool = False,  # noqa: ARG002
        weight_streaming_budget: int | None = None,
        **kwargs: Any,
    ) -> None:
        if weight_streaming_budget is not None:
            warn("weight_streaming_budget: an engine has all its weights in GPU memory")
        device_of(pytorch_model, device)
        super().__init__(pytorch_model, **translated({"strict": strict, **kwargs}))

    def set_expected_dynamic_shape_range(
        self,
        args_dynamic_shape: tuple[Any, ...],  # noqa: ARG002
        kwargs_dynamic_shape: Mapping[str, Any],  # noqa: ARG002
    ) -> None:
        """Warn that ranges are not set: sizes that varied become dynamic at the second size."""
        warn(
            "set_expected_dynamic_shape_range: sizes that varied become dynamic where a call has "
            "new ones"
        )

    @classmethod
    def load(
        cls, folder: str | Path, model: torch.nn.Module | None = None, **options: Any
    ) -> MutableModule:
        """Read what `save` wrote; the model has to be given, because a file has no code.

        Raises:
            SettingsError: The model is missing.
            LoadError: As `portrt.MutableModule.load`.
        """
        if model is None:
            raise SettingsError(
                "MutableTorchTensorRTModule.load was called without the model",
                "the folder and the model: no code is stored",
                "write load(folder, model)",
            )
        return super().load(folder, model, **options)
