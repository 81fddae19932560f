"""Round half-precision outputs that torch.onnx leaves in float32.

torch.onnx sums half precision in float32, as PyTorch does, and casts the result for its users, but
not if the result is an output of the model.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

_HALF = {"float16": ir.DataType.FLOAT16, "bfloat16": ir.DataType.BFLOAT16}


def round_outputs(model: ir.Model, dtypes: Sequence[str]) -> None:
    """Cast float32 outputs to the half-precision dtypes that they should have.

    Args:
        model: Modified in place.
        dtypes: Dtypes of its outputs, such as "float16", in order.
    """
    outputs = model.graph.outputs
    for index, (value, dtype) in enumerate(zip(list(outputs), dtypes, strict=True)):
        wanted = _HALF.get(dtype)
        if wanted is None or value.dtype != ir.DataType.FLOAT:
            continue
        cast = ir.Node("", "Cast", [value], [ir.AttrInt64("to", wanted)])
        cast.name = f"node_Cast_{value.name}"
        maker = value.producer()
        if maker is not None:
            cast.metadata_props.update(maker.metadata_props)
        rounded = cast.outputs[0]
        rounded.name, rounded.shape = f"{value.name}_{dtype}", value.shape
        rounded.type = ir.TensorType(wanted)
        model.graph.append(cast)
        outputs[index] = rounded
