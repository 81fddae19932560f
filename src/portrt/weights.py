"""The weights image: all weights of a program as one safetensors file in one uint8 tensor."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from typing import Any

import torch

from portrt.errors import PackageError, brief
from portrt.format.dimensions import MAX_RANK
from portrt.format.json_fields import strict_json

# https://github.com/huggingface/safetensors: 8 bytes little-endian header length, JSON header,
# then the tensors without holes. The header is padded with spaces, which the format allows.
_MAX_HEADER_BYTES = 100_000_000
_ALIGNMENT = 64
# Images from this size are mapped from a temporary file: they are in memory only as far as they are
# read, and a library that can map weights from a file need not copy them.
_LARGE_BYTES = 128 << 20
_MAX_ELEMENTS = 2**62  # strides must fit in 64 bits, even if a size is 0
_DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "U16": torch.uint16,
    "I32": torch.int32,
    "U32": torch.uint32,
    "I64": torch.int64,
    "U64": torch.uint64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "C64": torch.complex64,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_REMEDY = "get the file again from where it was made, or compile the model again"


def storable(dtype: torch.dtype) -> bool:
    """Return whether a weights image can hold tensors of this dtype."""
    return dtype in _NAMES


def image_from_tensors(tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Write tensors to one image on the CPU.

    Args:
        tensors: Any shapes, on any device; dtypes for which `storable` is true.

    Returns:
        A 1-D uint8 tensor: the bytes of a safetensors file. A large one is mapped from a temporary
        file if the disk has space; the file exists as long as the tensor.
    """
    # Larger elements first, so that every tensor is aligned to its element size.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, Any] = {}
    end = 0
    for name in names:
        tensor = tensors[name]
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    head = len(text).to_bytes(8, "little") + text
    size = len(head) + end
    parts = (bytes_of(tensors[name]).numpy() for name in names)
    if size >= _LARGE_BYTES:
        from portrt.format.temp_file import scratch_file  # only the compiler needs it

        mapped = scratch_file(size, itertools.chain([head], parts))
        if mapped is not None:
            return torch.frombuffer(mapped, dtype=torch.uint8)
        parts = (bytes_of(tensors[name]).numpy() for name in names)
    image = torch.empty(size, dtype=torch.uint8)
    image[: len(head)] = torch.frombuffer(bytearray(head), dtype=torch.uint8)
    position = len(head)
    for part in parts:
        image[position : position + part.size] = torch.from_numpy(part)
        position += part.size
    return image


def bytes_of(tensor: torch.Tensor) -> torch.Tensor:
    """Return the bytes, 1-D uint8; a copy only if the tensor is not contiguous on the CPU."""
    plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    return plain.reshape(-1).view(torch.uint8)


class WeightsImage:
    """Reads an image: every tensor is a view of it, nothing is copied.

    Args:
        image: 1-D uint8 CPU tensor, which is kept alive.

    Attributes:
        address: Address of the image in memory.
        size: Number of bytes.

    Raises:
        PackageError: The header is malformed, or a tensor exceeds the image or overlaps another.
    """

    def __init__(self, image: torch.Tensor) -> None:
        self._image = image
        self.address = image.data_ptr()
        self.size = image.numel()
        self._start, self._header = _read_header(image)

    def __contains__(self, name: str) -> bool:
        return name in self._header

    def names(self) -> list[str]:
        """Return the names of all tensors in the image."""
        return list(self._header)

    def entry(self, name: str) -> tuple[torch.dtype, tuple[int, ...], int, int]:
        """Return dtype, shape, byte offset in the image and number of bytes of a tensor."""
        try:
            return self._header[name]
        except KeyError:
            raise PackageError(
                f"the weights image has no tensor {name!r:.80}",
                "the tensors it was made with",
                _REMEDY,
            ) from None

    def tensor(self, name: str) -> torch.Tensor:
        """Return a tensor as a view of the image; a copy only if it is unaligned in memory."""
        dtype, shape, start, size = self.entry(name)
        if size == 0:
            return torch.empty(shape, dtype=dtype)
        part = self._image[start : start + size]
        if part.data_ptr() % dtype.itemsize or part.storage_offset() % dtype.itemsize:
            part = part.clone()
        return part.view(dtype).view(shape)


def _read_header(
    image: torch.Tensor,
) -> tuple[int, dict[str, tuple[torch.dtype, tuple[int, ...], int, int]]]:
    total = image.numel()
    length = int.from_bytes(image[:8].numpy().tobytes(), "little") if total >= 8 else -1
    if not 2 <= length <= min(_MAX_HEADER_BYTES, total - 8):
        raise _bad(f"has {total} bytes and a header of {length}", "a safetensors header")
    start = 8 + length
    try:
        raw = strict_json(image[8:start].numpy().tobytes().decode())
    except (ValueError, RecursionError) as err:
        raise _bad("has a header that is not JSON", "a safetensors header") from err
    if not isinstance(raw, dict):
        raise _bad("has a header that is not a JSON object", "a safetensors header")
    raw.pop("__metadata__", None)
    found = {name: _entry(name, item, start, total) for name, item in raw.items()}
    _check_cover(found, start, total)
    return start, found


def _entry(name: str, item: Any, start: int, total: int) -> Any:
    try:
        dtype = _DTYPES[item["dtype"]]
        shape = tuple(item["shape"])
        first, last = item["data_offsets"]
        is_valid = all(type(part) is int and part >= 0 for part in (*shape, first, last))
        is_valid = is_valid and len(shape) <= MAX_RANK
    except (KeyError, TypeError, ValueError) as err:
        raise _bad(f"describes {name!r:.80} wrongly", "dtype, shape and data_offsets") from err
    size, spread = dtype.itemsize, 1
    for part in shape if is_valid else ():
        size *= part
        spread *= max(part, 1)
    if not is_valid or spread > _MAX_ELEMENTS:
        raise _bad(
            f"describes {name!r:.80} as {brief(item['shape'])} at {brief([first, last])}",
            f"up to {MAX_RANK} integers from 0, and two offsets",
        )
    if last - first != size or start + last > total:
        raise _bad(
            f"puts {name!r:.80} at bytes {brief(first)} to {brief(last)}",
            f"{brief(size)} bytes within the {total - start} bytes of data",
        )
    return dtype, shape, start + first, size


def _check_cover(found: Mapping[str, Any], start: int, total: int) -> None:
    position = start
    for _, _, first, size in sorted(found.values(), key=lambda entry: (entry[2], entry[3])):
        if first != position:
            raise _bad(f"has a hole or an overlap at byte {position}", "tensors side by side")
        position += size
    if position != total:
        raise _bad(f"ends at byte {total}", f"{position}, where its last tensor ends")


def _bad(fact: str, expected: str) -> PackageError:
    return PackageError(f"the weights image {fact}", expected, _REMEDY)
