"""Parser of the header of a serialized TensorRT engine (a "plan"). Imports no vendor library.

NVIDIA documents no layout. The layout below was observed in plans of TensorRT 8.6 and in engines of
TensorRT-RTX 1.7; for any other layout the result is None, never a guess. All integers are
little-endian:

    0   "ftrt" (TensorRT) or "vtrt" (TensorRT-RTX), then four zeros
    8   number of sections
    16  size of the plan in bytes
    24  version of the library, one byte each: major, minor, patch, build
    28  TensorRT-RTX: the magic again, and the GPUs, one bit each
    32 or 64  table of the sections: magic, offset and size, 8 bytes each. "NGNE" is the engine; a
        lean runtime inside precedes it as "NAEL"

Source for the magic and the version: trtexec's `--getPlanVersionOnly`, in NVIDIA/TensorRT's
samples/common/sampleEngines.cpp.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from portrt.errors import PackageError
from portrt.targets.versions import same_release

# All parsed fields of the header are within these first bytes.
HEADER_BYTES = 4096
_FIXED_BYTES = 28
_ENGINE_BYTES = 128  # read from the start of the engine section; more than is parsed
_MAX_SECTIONS = 64
_SECTION = struct.Struct("<8sQQ")
_TABLE_OFFSETS = (32, 64)

_MAGICS = {b"ftrt": "tensorrt", b"vtrt": "tensorrt_rtx"}
_ENGINE = b"NGNE"
# Magic of a shared library on Linux, and on Windows.
_NATIVE_CODE = (b"\x7fELF", b"MZ")

# TensorRT-RTX 1.7: bit 0 is 7.5, and so on. Determined by building for one GPU at a time; bit 6,
# which portable engines set as well, is no GPU of this builder.
_RTX_LAYOUT = (1, 7)
_RTX_GPUS = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")

# TensorRT 8.6, engine section: the version again, the hardware compatibility level (0 for none, 1
# for Ampere and newer), then the properties of the GPU, starting with its compute capability. Each
# value is preceded by a type tag.
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
    """Properties of a plan that are known without deserializing it.

    Attributes:
        backend: "tensorrt" or "tensorrt_rtx".
        version: Version of the library that built it, such as "8.6.0.12".
        compute_capabilities: Compute capabilities that it was built for, or None if unknown. A
            hardware-compatible engine lists the GPU that it was built on, and runs on others too.
        hardware_compatible: Whether it runs on GPUs of compute capability 8.0 and newer, or None if
            unknown.
        version_compatible: Whether other versions of the library can run it, or None if unknown.
        lean_runtime: "inside" if it carries a host code library, "outside" if it has only one
            section and so cannot carry one, None if unknown. Meaningless for an engine that is not
            version compatible.
    """

    backend: str
    version: str
    compute_capabilities: tuple[str, ...] | None
    hardware_compatible: bool | None
    version_compatible: bool | None
    lean_runtime: str | None


def read_plan_header(data: bytes | bytearray | memoryview, size: int | None = None) -> PlanHeader:
    """Read the header of a plan.

    Reads the first 4 KiB and a few bytes of each section, in bounded time for any contents.

    Args:
        data: The plan, or its beginning: 512 bytes suffice for a plan that carries no host code.
        size: Size of the whole plan in bytes; None if unknown, then it is not checked.

    Raises:
        PackageError: It is not a plan of TensorRT 8.6 or newer, or it is truncated.
    """
    view = memoryview(data).cast("B")
    head = bytes(view[:HEADER_BYTES])
    backend = _backend(head)
    section_count, stated_size = struct.unpack_from("<QQ", head, 8)
    if size is not None and size < stated_size:
        raise PackageError(
            f"the plan has {size} bytes, and its header states {stated_size}",
            "a complete plan",
            "get it again from where it was made",
        )
    version = tuple(head[24:28])
    if version[0] == 0:
        raise _no_plan("a plan whose version is 0")
    text = ".".join(map(str, version))
    sections = _sections(head, section_count, stated_size)
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
    """Return how a plan's header contradicts its declared backend and version, or "".

    A library may crash on a plan of another version, so the header is checked before anything is
    deserialized. A header that cannot be parsed is not an error: newer versions may change it.

    Args:
        data: The plan.
        backend: Declared backend: "tensorrt" or "tensorrt_rtx".
        version: Declared version of the library that built it.
    """
    try:
        header = read_plan_header(data, len(data))
    except PackageError:
        return ""
    if header.backend == backend and same_release(version, header.version, 4):
        return ""
    return f"it is declared as {backend} {version}, and is of {header.backend} {header.version}"


def _backend(head: bytes) -> str:
    backend = _MAGICS.get(head[:4])
    if backend is None:
        if head[:4] == b"ptrt":
            raise _no_plan("an engine of a TensorRT older than 8.6")
        raise _no_plan(f"{len(head)} bytes that begin with {head[:8]!r}")
    if len(head) < _FIXED_BYTES:
        raise _no_plan(f"a plan truncated after {len(head)} bytes")
    serialization = struct.unpack_from("<I", head, 4)[0]
    if serialization != 0:
        raise _no_plan(f"a plan with the unknown serialization version {serialization}")
    return backend


def _no_plan(fact: str) -> PackageError:
    return PackageError(
        f"these bytes are not a usable plan: {fact}",
        "a serialized engine of TensorRT 8.6 or newer (it begins with 'ftrt') or of TensorRT-RTX "
        "('vtrt')",
        "give the bytes that the builder's build_serialized_network returned, without a prefix",
    )


def _sections(head: bytes, count: int, plan_size: int) -> list[tuple[bytes, int, int]] | None:
    """Return (magic, offset, size) of each section, or None if there is no such table."""
    if not 1 <= count <= _MAX_SECTIONS:
        return None
    for start in _TABLE_OFFSETS:
        end = start + count * _SECTION.size
        if end > len(head):
            continue
        found = list(_SECTION.iter_unpack(head[start:end]))
        ordered = all(magic and end <= offset <= plan_size - size for magic, offset, size in found)
        engines = [magic for magic, _, _ in found if magic.rstrip(b"\0") == _ENGINE]
        if ordered and len(engines) == 1 and found[0][1] == end:
            return found
    return None


def _carries_code(view: memoryview, sections: list[tuple[bytes, int, int]]) -> bool | None:
    """Return whether a section is a shared library; None if that is unknown."""
    others = [(offset, size) for magic, offset, size in sections if magic.rstrip(b"\0") != _ENGINE]
    for offset, size in others:
        if bytes(view[offset : offset + min(size, 4)]).startswith(_NATIVE_CODE):
            return True
    return None if others else False


def _gpu(
    view: memoryview, sections: list[tuple[bytes, int, int]] | None, version: tuple[int, ...]
) -> tuple[tuple[str, ...] | None, bool | None]:
    """Return the engine's compute capabilities and hardware compatibility; None if unknown."""
    for magic, offset, _ in sections or ():
        if magic.rstrip(b"\0") != _ENGINE:
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
