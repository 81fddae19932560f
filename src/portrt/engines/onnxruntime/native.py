"""Creates sessions of ONNX Runtime over the weights image, with as few copies as possible.

Where the image lies in a mapped file, ONNX Runtime maps the weights from that file itself: it
copies none of them, and unmaps each when it is prepacked. Otherwise it uses them from memory, and
copies those that its optimizer may change.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch

from portrt.engines.onnxruntime.types import value_over
from portrt.format.memory_map import Region, region_at
from portrt.format.onnx_wire import external_fault
from portrt.weights import WeightsImage

logger = logging.getLogger(__name__)

Prepare = Callable[[Any], None]

# Below this size copies do not matter, but the import of onnx does, which is needed to point a
# model to another file.
_LARGE_BYTES = 64 << 20


def open_session(
    data: bytes,
    names: Sequence[str],
    image: WeightsImage | None,
    *,
    in_place: Sequence[int] = (),
    low_memory: bool,
    prepare: Prepare | None = None,
) -> tuple[Any, Any]:
    """Create a session.

    Args:
        data: The ONNX model, whose weights are external.
        names: Names of the weights that it takes.
        image: Weights image that holds them.
        in_place: Indices in `names` of the weights that the optimizer does not change, as its
            builder found. Without a mapped file the others are copied.
        low_memory: For a single run: the weights are used as they lie, and not copied into the
            order in which the kernels read.
        prepare: Called with the session's options, to set more of them.

    Returns:
        The session, and the values that must live as long as it does, or None.

    Raises:
        ValueError: The model names another file than the weights image, which ONNX Runtime would
            read.
    """
    if fault := external_fault(data, names):
        raise ValueError(f"the model {fault}")

    def options() -> Any:
        found = _options(low_memory=low_memory)
        if prepare is not None:
            prepare(found)
        return found

    session = None
    if image is not None and names and image.size >= _LARGE_BYTES:
        session = _over_file(data, names, image, options())
    if session is not None:
        return session, None
    values = _values(names, image)
    chosen = options()
    if values:
        # ONNX Runtime copies external initializers. `add_initializer` makes it use the memory
        # itself, but discards changes that its optimizer made to the weight: a wrong result for a
        # weight that is transposed in place.
        chosen.add_external_initializers(list(values), list(values.values()))
        for place in in_place:
            chosen.add_initializer(names[place], values[names[place]])
    return _session(data, chosen), values


def _over_file(data: bytes, names: Sequence[str], image: WeightsImage, options: Any) -> Any | None:
    """Create a session that maps the weights from the image's file; None if it cannot."""
    region = region_at(image.address, image.size)
    if region is None or not region.is_there():
        return None
    moved = _moved(data, names, image, region)
    if moved is None:
        return None
    folder = "session.model_external_initializers_file_folder_path"
    options.add_session_config_entry(folder, str(region.path.parent))
    try:
        session = _session(moved, options)
    except Exception as err:  # such as a folder that ONNX Runtime does not read weights from
        logger.debug("the weights are not mapped from %s: %s", region.path, err)
        return None
    # Checked again: the file may have been replaced meanwhile.
    return session if region.is_there() else None


def _moved(data: bytes, names: Sequence[str], image: WeightsImage, region: Region) -> bytes | None:
    """Point the model's weights to the file; None if it has other external weights."""
    import onnx

    model = onnx.load_model_from_string(data)
    start = image.address - region.address
    wanted = set(names)
    for tensor in model.graph.initializer:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        if tensor.name not in wanted:
            return None
        _, shape, offset, size = image.entry(tensor.name)
        if tuple(tensor.dims) != shape:
            return None
        place = {"location": region.path.name, "offset": start + offset, "length": size}
        del tensor.external_data[:]
        for key, value in place.items():
            tensor.external_data.add(key=key, value=str(value))
    moved: bytes = model.SerializeToString()
    return moved


def _values(names: Sequence[str], image: WeightsImage | None) -> dict[str, Any]:
    """Wrap the weights as values of ONNX Runtime: views of the image, without copies."""
    if not names:
        return {}
    assert image is not None  # decode() checked it
    return {name: value_over(image.tensor(name)) for name in names}


def _options(*, low_memory: bool) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # What a single run fails with is raised, and need not be printed.
    options.log_severity_level = 4 if low_memory else 3
    options.intra_op_num_threads = torch.get_num_threads()
    # Threads spin during a run only: afterwards torch, or the next block, needs the cores.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    # Keep int8: ONNX Runtime's conversion to uint8 fails after a MatMul that was fused into a Gemm.
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    # MatMuls with int8 weights in float32: by default it quantizes the other operand to int8.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    if low_memory:
        options.add_session_config_entry("session.disable_prepacking", "1")
    return options


def _session(data: bytes, options: Any) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
