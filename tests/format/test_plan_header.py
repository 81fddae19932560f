"""The header of a plan.

The files in plans/ are the first 512 bytes of what TensorRT 8.6.0 (for compute capability 9.0,
version compatible, without a lean runtime) and TensorRT-RTX 1.7.1 built, and the first 192 bytes of
two more of TensorRT 8.6.0: hardware compatible, and with a lean runtime inside.
"""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest
import tiny
from tiny import call_of, compiled

from portrt.compiler.backends import registry
from portrt.errors import PackageError
from portrt.format.plan_header import PlanHeader, read_plan_header

PLANS = Path(__file__).parent / "plans"
PLAN = (PLANS / "tensorrt_8_6_sm90.head").read_bytes()
RTX_PLAN = (PLANS / "tensorrt_rtx_1_7.head").read_bytes()
RTX = registry.builder("tensorrt_rtx").can_build()


def test_a_plan_of_tensorrt() -> None:
    assert read_plan_header(PLAN) == PlanHeader(
        "tensorrt", "8.6.0.12", ("9.0",), False, None, "outside"
    )


def test_a_plan_for_other_gpus_too() -> None:
    plan = (PLANS / "tensorrt_8_6_hardware_compatible.head").read_bytes()
    header = PlanHeader("tensorrt", "8.6.0.12", ("9.0",), True, None, "outside")
    assert read_plan_header(plan) == header


def test_the_beginning_of_a_plan_with_a_lean_runtime() -> None:
    """Its engine lies 33 MB behind, where it tells the GPU."""
    plan = (PLANS / "tensorrt_8_6_lean_inside.head").read_bytes()
    header = PlanHeader("tensorrt", "8.6.0.12", None, None, True, "inside")
    assert read_plan_header(plan) == header
    engine = 0x1F56838
    whole = plan + bytes(engine - len(plan)) + PLAN[0x38:]
    whole += bytes(0x1F5C224 - len(whole))
    told = PlanHeader("tensorrt", "8.6.0.12", ("9.0",), False, True, "inside")
    assert read_plan_header(whole, len(whole)) == told


def test_an_engine_of_tensorrt_rtx() -> None:
    gpus = ("8.0", "8.6", "8.9", "12.0", "12.1")
    assert read_plan_header(RTX_PLAN) == PlanHeader(
        "tensorrt_rtx", "1.7.1.116", gpus, False, False, None
    )


@pytest.mark.skipif(not RTX, reason=str(RTX))
@pytest.mark.parametrize("targets", [(), ("8.9",), ("8.0", "12.0")])
def test_what_the_installed_builder_writes(targets: tuple[str, ...]) -> None:
    """The oracle is what the builder was asked for, and the version that it tells."""
    call = call_of(compiled("tensorrt_rtx", target_compute_capabilities=targets))
    engine = call.engine("tensorrt_rtx")
    data = call.blobs[engine["data"]["blob"]].numpy().tobytes()
    header = read_plan_header(data, len(data))
    assert header.backend == "tensorrt_rtx"
    assert header.version == engine["build"]["version"]
    assert header.compute_capabilities == tuple(engine["requires"]["compute_capabilities"])


def edited(plan: bytes, offset: int, data: bytes) -> bytes:
    return plan[:offset] + data + plan[offset + len(data) :]


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (b"", "0 bytes"),
        (b"ftr", "3 bytes"),
        (b"not a plan at all", "begin with b'not a pl'"),
        (b"\x10\0\0\0" + b'{"stride": 32}' + PLAN, "begin with"),
        (b"ptrt" + PLAN[4:], "older than 8.6"),
        (PLAN[:27], "truncated after 27 bytes"),
        (edited(PLAN, 4, b"\1\0\0\0"), "serialization version 1"),
        (edited(PLAN, 24, b"\0"), "version is 0"),
    ],
)
def test_what_is_no_plan(plan: bytes, words: str) -> None:
    with pytest.raises(PackageError) as caught:
        read_plan_header(plan)
    assert words in caught.value.happened
    assert "build_serialized_network" in caught.value.remedy


def test_a_plan_that_is_cut_off() -> None:
    (size,) = struct.unpack_from("<Q", PLAN, 16)
    assert read_plan_header(PLAN, size).version == "8.6.0.12"
    with pytest.raises(PackageError, match=f"has {size - 1} bytes, and its header states {size}"):
        read_plan_header(PLAN, size - 1)


@pytest.mark.parametrize(
    "plan",
    [
        edited(PLAN, 32, b"WHAT"),  # another first section
        edited(PLAN, 40, b"\x39"),  # not where the table ends
        edited(PLAN, 8, struct.pack("<Q", 2**63)),  # a table beyond all bounds
        edited(PLAN, 8, struct.pack("<Q", 0)),
        edited(PLAN, 48, struct.pack("<Q", 2**64 - 1)),  # a section beyond the plan
        edited(PLAN, 84, b"\x0a"),  # the engine has another version than its header
        edited(PLAN, 0x74, b"\x11"),  # another layout
        edited(PLAN, 0x7C, b"\x63"),  # compute capability 99
        PLAN[:28],
        PLAN[:100],
    ],
)
def test_what_is_not_recognised_is_not_guessed(plan: bytes) -> None:
    header = read_plan_header(plan)
    assert header.version == "8.6.0.12"
    assert header.compute_capabilities is None
    assert header.version_compatible is None


def with_second_section(mark: bytes, content: bytes, offset: int | None = None) -> bytes:
    """PLAN with one section more, behind the engine."""
    engine = PLAN[0x38:]
    start = 32 + 2 * 24
    offset = start + len(engine) if offset is None else offset
    table = struct.pack("<8sQQ", b"NGNE", start, len(engine))
    table += struct.pack("<8sQQ", mark, offset, len(content))
    size = start + len(engine) + len(content)
    return PLAN[:8] + struct.pack("<QQ", 2, size) + PLAN[24:32] + table + engine + content


@pytest.mark.parametrize("content", [b"\x7fELF\2\1\1", b"MZ\x90\0"])
def test_a_plan_that_carries_a_library(content: bytes) -> None:
    header = read_plan_header(with_second_section(b"LEAN", content))
    assert (header.version_compatible, header.lean_runtime) == (True, "inside")
    assert header.compute_capabilities == ("9.0",)


@pytest.mark.parametrize(
    "plan",
    [
        with_second_section(b"WHAT", b"anything"),
        with_second_section(b"WHAT", b"\x7fELF")[:-4],  # its beginning alone was given
        with_second_section(b"WHAT", b"\x7fELF", offset=2**64 - 1),
    ],
)
def test_an_unknown_section_says_nothing(plan: bytes) -> None:
    header = read_plan_header(plan)
    assert (header.version_compatible, header.lean_runtime) == (None, None)


@pytest.mark.parametrize("plan", [PLAN, RTX_PLAN, with_second_section(b"LEAN", b"\x7fELF")])
def test_any_change_is_a_header_or_a_package_error(plan: bytes) -> None:
    draw = random.Random(0)
    seen = set()
    for _ in range(5000):
        data = bytearray(plan[: draw.choice([len(plan), draw.randrange(len(plan))])])
        for _ in range(draw.randrange(1, 6)):
            if data:
                data[draw.randrange(min(len(data), 160))] = draw.randrange(256)
        try:
            read_plan_header(data, draw.choice([None, len(data), 1 << 60]))
            seen.add("header")
        except PackageError:
            seen.add("error")
    assert seen == {"header", "error"}


def test_no_torch_is_imported() -> None:
    code = """
        import sys
        from portrt.format.plan_header import read_plan_header
        read_plan_header(open(sys.argv[1], "rb").read())
        assert not {"torch", "numpy"} & set(sys.modules)
    """
    done = tiny.python(code, str(PLANS / "tensorrt_8_6_sm90.head"))
    assert done.returncode == 0, done.stderr
