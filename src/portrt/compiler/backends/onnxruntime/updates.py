"""Outputs of an ONNX model that may be computed in the memory of an input."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


def updates_in_place(data: bytes, inputs: Sequence[str]) -> list[list[int]]:
    """Find the outputs that are an input with some numbers replaced by ScatterND.

    ONNX Runtime's kernel writes the numbers only, if output and input are the same memory. Nothing
    else may read that input: it might run later.

    Args:
        data: The ONNX model.
        inputs: Names of the block's inputs.

    Returns:
        [output, input] as indices, for each such output.
    """
    if b"ScatterND" not in data:
        return []
    import onnx

    model = onnx.load_model_from_string(data)
    uses: Counter[str] = Counter(item.name for item in model.graph.output)
    graphs = [model.graph]
    while graphs:
        for node in graphs.pop().node:
            uses.update(node.input)
            graphs += [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    made = {
        node.output[0]: node.input[0]
        for node in model.graph.node
        if node.op_type == "ScatterND" and not node.domain
    }
    return [
        [index, inputs.index(made[item.name])]
        for index, item in enumerate(model.graph.output)
        if item.name in made and uses[made[item.name]] == 1 and made[item.name] in inputs
    ]
