"""The header of a TensorRT engine (a "plan"): what its first bytes say. No vendor library here.

NVIDIA documents no layout. What is read here was seen in plans of TensorRT 8.6 and in engines of
TensorRT-RTX 1.7; what has another layout is answered with None, never with a guess. All numbers are
little-endian:

    0   "ftrt" (TensorRT) or "vtrt" (TensorRT-RTX), then four zeros
    8   number of sections
    16  size of the whole plan in bytes
    24  version of the library, one byte each: major, minor, patch, build
    28  TensorRT-RTX: its mark again, and the GPUs, one bit each
    32 or 64  a table of the sections: mark, offset and size, each of 8 bytes. "NGNE" is the engine;
        with a lean runtime inside, the library lies before it as "NAEL"

Source for the mark and the version: trtexec's `--getPlanVersionOnly`, in NVIDIA/TensorRT's
samples/common/sampleEngines.cpp.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from portrt.errors import PackageError
from portrt.targets.versions import same_release

# The parts that are read lie well within these first bytes.
HEADER_BYTES = 4096
_FIXED_BYTES = 28
_ENGINE_BYTES = 128  # of the engine's beginning, more than is read of it
_MAX_SECTIONS = 64
_SECTION = struct.Struct("<8sQQ")
_TABLE_OFFSETS = (32, 64)

_MARKS = {b"ftrt": "tensorrt", b"vtrt": "tensorrt_rtx"}
_ENGINE = b"NGNE"
# How a shared library begins on Linux, and on Windows.
_NATIVE_CODE = (b"\x7fELF", b"MZ")

# TensorRT-RTX 1.7: bit 0 is 7.5, and so on. Learned by building for one GPU at a time; bit 6, which
# portable engines have as well, is none that this builder knows.
_RTX_LAYOUT = (1, 7)
_RTX_GPUS = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")

# TensorRT 8.6, within the engine: its version again, the level of hardware compatibility (0 for
# none, 1 for GPUs from Ampere on), then the properties of the GPU, of which the first two are its
# compute capability. A value is preceded by a tag that says its type.
_U8, _U32 = rb"\x02\x80\x01\x00", rb"\x07\x80\x01\x00"
_ENGINE_8_6 = re.compile(
    rb"ptrt.{20}"
    + (_U8 + rb"(.)") * 4
    + rb"\xe5\x80\x01\x00"
    + _U32
    + rb"([\x00\x01])\0\0\0\x12\x80\x01\x00\x10\x80\x01\x00"
    + _U32
    + rb"(.)\0\0\0"
    + _U32
    + rb"(.)\0\0\0",
    re.DOTALL,
)


@dataclass(frozen=True)
class PlanHeader:
    """What a plan says of itself before anything deserializes it.

    Attributes:
        backend: "tensorrt" or "tensorrt_rtx".
        version: Of the library that built it, such as "8.6.0.12".
        compute_capabilities: GPUs that it was built for, or None where the layout is not known. A
            hardware-compatible engine names the GPU that it was built on, and runs on others too.
        hardware_compatible: Whether it runs on GPUs from compute capability 8.0 on, or None where
            the layout is not known.
        version_compatible: Whether other versions of the library can run it, or None where its
            bytes do not tell.
        lean_runtime: "inside" where it carries a library of code for the CPU, "outside" where it
            has one section alone and so cannot carry one, None where that is not known. Means
            nothing for an engine that is not version compatible.
    """

    backend: str
    version: str
    compute_capabilities: tuple[str, ...] | None
    hardware_compatible: bool | None
    version_compatible: bool | None
    lean_runtime: str | None


def read_plan_header(data: bytes | bytearray | memoryview, size: int | None = None) -> PlanHeader:
    """Read the header of a plan.

    Reads the first 4 KiB and a few bytes of each section, in bounded time, whatever stands there.

    Args:
        data: The plan, or its beginning: 512 bytes tell all of a plan that carries no code.
        size: Bytes of the whole plan; None where that is not known, and is not checked.

    Raises:
        PackageError: It is no plan of TensorRT 8.6 or newer, or it is cut off.
    """
    view = memoryview(data).cast("B")
    head = bytes(view[:HEADER_BYTES])
    backend = _backend(head)
    sections_count, said_size = struct.unpack_from("<QQ", head, 8)
    if size is not None and size < said_size:
        raise PackageError(
            f"the plan has {size} bytes and says that it has {said_size}",
            "a whole plan",
            "get it again from where it was made",
        )
    version = tuple(head[24:28])
    if version[0] == 0:
        raise _no_plan("a plan whose version is 0")
    text = ".".join(map(str, version))
    sections = _sections(head, sections_count, said_size)
    if backend == "tensorrt_rtx":
        return PlanHeader(backend, text, _rtx_gpus(head, version), False, False, None)
    carries = None if sections is None else _carries_code(view, sections)
    gpu, hardware_compatible = _gpu(view, sections, version)
    return PlanHeader(
        backend,
        text,
        gpu,
        hardware_compatible,
        True if carries else None,
        {True: "inside", False: "outside", None: None}[carries],
    )


def contradiction(data: bytes | bytearray | memoryview, backend: str, version: str) -> str:
    """Why bytes are not the plan that they are said to be, or "" where nothing says so.

    A library may crash on a plan of another version; by the header nothing is run to find out.
    What cannot be read is left to the library: a newer one may have another header.

    Args:
        data: The plan.
        backend: "tensorrt" or "tensorrt_rtx".
        version: Of the library that is said to have built it.
    """
    try:
        header = read_plan_header(data, len(data))
    except PackageError:
        return ""
    if header.backend == backend and same_release(version, header.version, 4):
        return ""
    return f"it is said to be of {backend} {version}, and is of {header.backend} {header.version}"


def _backend(head: bytes) -> str:
    backend = _MARKS.get(head[:4])
    if backend is None:
        if head[:4] == b"ptrt":
            raise _no_plan("an engine of a TensorRT older than 8.6")
        raise _no_plan(f"{len(head)} bytes that begin with {head[:8]!r}")
    if len(head) < _FIXED_BYTES:
        raise _no_plan(f"a plan cut off after {len(head)} bytes")
    serialization = struct.unpack_from("<I", head, 4)[0]
    if serialization != 0:
        raise _no_plan(f"a plan with the unknown serialization version {serialization}")
    return backend


def _no_plan(fact: str) -> PackageError:
    return PackageError(
        f"these are no bytes of a plan that can be used: {fact}",
        "a serialized engine of TensorRT 8.6 or newer (it begins with 'ftrt') or of TensorRT-RTX "
        "('vtrt')",
        "give the bytes that the builder's build_serialized_network made, with nothing before them",
    )


def _sections(head: bytes, count: int, plan_size: int) -> list[tuple[bytes, int, int]] | None:
    """(mark, offset, size) of each section, or None where there is no such table."""
    if not 1 <= count <= _MAX_SECTIONS:
        return None
    for start in _TABLE_OFFSETS:
        end = start + count * _SECTION.size
        if end > len(head):
            continue
        found = list(_SECTION.iter_unpack(head[start:end]))
        ordered = all(mark and end <= offset <= plan_size - size for mark, offset, size in found)
        engines = [mark for mark, _, _ in found if mark.rstrip(b"\0") == _ENGINE]
        if ordered and len(engines) == 1 and found[0][1] == end:
            return found
    return None


def _carries_code(view: memoryview, sections: list[tuple[bytes, int, int]]) -> bool | None:
    """Whether a section is a shared library; None where that cannot be told."""
    others = [(offset, size) for mark, offset, size in sections if mark.rstrip(b"\0") != _ENGINE]
    for offset, size in others:
        if bytes(view[offset : offset + min(size, 4)]).startswith(_NATIVE_CODE):
            return True
    return None if others else False


def _gpu(
    view: memoryview, sections: list[tuple[bytes, int, int]] | None, version: tuple[int, ...]
) -> tuple[tuple[str, ...] | None, bool | None]:
    """What the engine says: its GPU, and whether it runs on others; None where that is unknown."""
    for mark, offset, _ in sections or ():
        if mark.rstrip(b"\0") != _ENGINE:
            continue
        found = _ENGINE_8_6.match(bytes(view[offset : offset + _ENGINE_BYTES]))
        if found is None:
            break
        *built_by, level, major, minor = (part[0] for part in found.groups())
        if tuple(built_by) == version and 5 <= major <= 20 and minor <= 9:
            return (f"{major}.{minor}",), bool(level)
    return None, None


def _rtx_gpus(head: bytes, version: tuple[int, ...]) -> tuple[str, ...] | None:
    if version[:2] != _RTX_LAYOUT or head[28:32] != b"vtrt" or len(head) < 40:
        return None
    bits = struct.unpack_from("<Q", head, 32)[0]
    return tuple(gpu for bit, gpu in enumerate(_RTX_GPUS) if bits >> bit & 1) or None
