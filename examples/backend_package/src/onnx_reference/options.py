"""Options of `compile` that only this backend has."""

from __future__ import annotations

from dataclasses import dataclass

from portrt.compiler.convert import NEWEST_OPSET
from portrt.compiler.options import values
from portrt.compiler.options.fields import BackendOptions, setting


@dataclass(frozen=True, kw_only=True)
class ReferenceOptions(BackendOptions):
    """What the builder of `onnx_reference` engines can be given."""

    reference_opset: int = setting(
        NEWEST_OPSET,
        help="Opset of the engine's ONNX model.",
        rebuilds=True,
        parse=values.integer(18, NEWEST_OPSET),
    )
