"""The weights image against safetensors itself, and images that lie."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from effort import steps

from portrt.errors import PackageError
from portrt.weights import _DTYPES, WeightsImage, image_from_tensors, storable

# What safetensors writes from torch tensors; it has no complex64.
SHARED = [dtype for dtype in _DTYPES.values() if dtype != torch.complex64]


def random_tensor(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    """Random bits: NaNs, infinities and denormals included."""
    generator = torch.Generator().manual_seed(len(shape))
    if dtype == torch.bool:
        return torch.randint(0, 2, shape, generator=generator) == 1
    count = dtype.itemsize
    for part in shape:
        count *= part
    raw = torch.randint(0, 256, (count,), generator=generator, dtype=torch.uint8)
    return raw.view(dtype).view(shape)


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def image_of_bytes(data: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(0).byte()


def all_dtypes(dtypes: list[torch.dtype]) -> dict[str, torch.Tensor]:
    found = {}
    for dtype in dtypes:
        for shape in ((), (0,), (3,), (2, 0, 4), (5, 7)):
            found[f"{dtype}{list(shape)}"] = random_tensor(dtype, *shape)
    return found


def test_safetensors_reads_our_image() -> None:
    tensors = all_dtypes(SHARED)
    read = safetensors.torch.load(image_from_tensors(tensors).numpy().tobytes())
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (read[name].dtype, read[name].shape) == (tensor.dtype, tensor.shape), name
        assert bits(read[name]) == bits(tensor), name


def test_we_read_an_image_of_safetensors() -> None:
    tensors = all_dtypes(SHARED)
    image = WeightsImage(image_of_bytes(safetensors.torch.save(tensors, {"made": "here"})))
    assert sorted(image.names()) == sorted(tensors)
    for name, tensor in tensors.items():
        read = image.tensor(name)
        assert (read.dtype, read.shape) == (tensor.dtype, tensor.shape), name
        assert bits(read) == bits(tensor), name


def test_we_read_our_own_image_of_every_dtype() -> None:
    tensors = all_dtypes(list(_DTYPES.values()))
    image = WeightsImage(image_from_tensors(tensors))
    for name, tensor in tensors.items():
        assert image.tensor(name).dtype == tensor.dtype
        assert bits(image.tensor(name)) == bits(tensor), name


def test_a_dtype_outside_the_format_is_not_storable() -> None:
    assert all(map(storable, _DTYPES.values()))
    assert not storable(torch.complex128)


def test_no_tensors_make_an_image() -> None:
    image = image_from_tensors({})
    assert WeightsImage(image).names() == []
    assert safetensors.torch.load(image.numpy().tobytes()) == {}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_bits_of_nan_are_kept(dtype: torch.dtype) -> None:
    kinds = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    whole = kinds[dtype.itemsize]
    exponent = torch.tensor([float("inf")], dtype=dtype).view(whole)
    signaling = (exponent | 1).view(dtype)
    negative = (exponent | 3 | torch.iinfo(whole).min).view(dtype)
    tensor = torch.cat([signaling, negative])
    assert tensor.isnan().all()
    assert bits(WeightsImage(image_from_tensors({"w": tensor})).tensor("w")) == bits(tensor)


@pytest.mark.parametrize(
    "source",
    [
        torch.arange(12.0).view(3, 4).t(),
        torch.arange(24.0).view(4, 6)[::2, 1::2],
        torch.ones(1).expand(5, 3),
        torch.randn(3, dtype=torch.complex64).conj(),
        torch.randn(3, dtype=torch.complex64).conj().imag,
        torch.nn.Parameter(torch.randn(3, 2)),
    ],
    ids=["transposed", "strided", "expanded", "conjugated", "negated", "parameter"],
)
def test_source_that_is_no_plain_memory_is_stored_by_value(source: torch.Tensor) -> None:
    stored = WeightsImage(image_from_tensors({"w": source})).tensor("w")
    assert stored.is_contiguous()
    assert torch.equal(stored, source.detach())


def test_tensors_are_aligned_views_of_the_image() -> None:
    image = image_from_tensors(all_dtypes(list(_DTYPES.values())))
    start, end = image.data_ptr(), image.data_ptr() + image.numel()
    read = WeightsImage(image)
    for name in read.names():
        tensor = read.tensor(name)
        if tensor.numel():
            assert start <= tensor.data_ptr() < end, name
            assert tensor.data_ptr() % tensor.dtype.itemsize == 0, name
            assert tensor.untyped_storage().data_ptr() == image.untyped_storage().data_ptr()


def test_first_tensor_lies_at_a_multiple_of_64() -> None:
    for name in ("w", "a.longer.name", "x" * 50):
        _, _, start, _ = WeightsImage(image_from_tensors({name: torch.ones(4)})).entry(name)
        assert start % 64 == 0


def test_a_tensor_at_an_odd_address_is_read_right() -> None:
    tensors = {"w": torch.randn(5), "empty": torch.empty(0, 3), "b": torch.ones(3).bool()}
    image = image_from_tensors(tensors)
    shifted = torch.empty(image.numel() + 1, dtype=torch.uint8)[1:]
    shifted.copy_(image)
    for name, tensor in tensors.items():
        assert torch.equal(WeightsImage(shifted).tensor(name), tensor)


def test_an_empty_tensor_may_lie_at_any_byte() -> None:
    header = {
        "flag": {"dtype": "BOOL", "shape": [1], "data_offsets": [0, 1]},
        "empty": {"dtype": "F32", "shape": [0, 3], "data_offsets": [1, 1]},
    }
    empty = WeightsImage(image_of(header, b"\x01")).tensor("empty")
    assert (empty.dtype, empty.shape) == (torch.float32, (0, 3))


def test_an_unknown_name_is_a_package_error() -> None:
    image = WeightsImage(image_from_tensors({"w": torch.ones(1)}))
    assert "w" in image
    assert "v" not in image
    with pytest.raises(PackageError, match="no tensor 'v'"):
        image.tensor("v")


def image_of(header: Any, data: bytes = b"\0" * 16) -> torch.Tensor:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return image_of_bytes(len(text).to_bytes(8, "little") + text + data)


def entry(dtype: Any = "F32", shape: Any = (4,), offsets: Any = (0, 16)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


GOOD = {"w": entry()}
GOOD_TEXT = json.dumps(GOOD)

BAD: dict[str, torch.Tensor] = {
    "nothing": image_of_bytes(b""),
    "seven bytes": image_of_bytes(b"\0" * 7),
    "no header": image_of_bytes(b"\0" * 8),
    "header longer than the image": image_of_bytes((1000).to_bytes(8, "little") + b"{}"),
    "header of 2**63 bytes": image_of_bytes((2**63).to_bytes(8, "little") + b"{}"),
    "header of 2**64 - 1 bytes": image_of_bytes(b"\xff" * 8 + b"{}"),
    "not JSON": image_of(b"{'w': 1}"),
    "not UTF-8": image_of(b'{"\xff": 1}'),
    "UTF-16": image_of(GOOD_TEXT.encode("utf-16")),
    "deep JSON": image_of(b"[" * 200_000 + b"]" * 200_000),
    "deep shape": image_of(GOOD_TEXT.replace("[4]", "[" * 900 + "]" * 900).encode()),
    "a list": image_of([GOOD]),
    "a key twice": image_of((GOOD_TEXT[:-1] + ", " + GOOD_TEXT[1:]).encode()),
    "a field twice": image_of(GOOD_TEXT.replace('"dtype"', '"shape": [4], "dtype"').encode()),
    "NaN": image_of(GOOD_TEXT.replace("[4]", "[NaN]").encode()),
    "huge float": image_of(GOOD_TEXT.replace("[4]", "[1e999]").encode()),
    "entry is a list": image_of({"w": ["F32", [4], [0, 16]]}),
    "entry is text": image_of({"w": "F32"}),
    "entry is null": image_of({"w": None}),
    "no dtype": image_of({"w": {"shape": [4], "data_offsets": [0, 16]}}),
    "no shape": image_of({"w": {"dtype": "F32", "data_offsets": [0, 16]}}),
    "no offsets": image_of({"w": {"dtype": "F32", "shape": [4]}}),
    "unknown dtype": image_of({"w": entry(dtype="F128")}),
    "dtype is a list": image_of({"w": entry(dtype=["F32"])}),
    "shape is a number": image_of({"w": entry(shape=4)}),
    "shape is text": image_of({"w": entry(shape="4")}),
    "shape is an object": image_of({"w": entry(shape={"4": 1})}),
    "bool in the shape": image_of({"w": entry(shape=[True, 4])}),
    "float in the shape": image_of({"w": entry(shape=[4.0])}),
    "negative size": image_of({"w": entry(shape=[-2, -2])}),
    "wrong product": image_of({"w": entry(shape=[5])}),
    "product beyond 64 bits": image_of({"w": entry(shape=[2**32, 2**32])}),
    "product that wraps to 16": image_of({"w": entry(shape=[2**62 + 4])}),
    "huge beside zero": image_of({"w": entry(shape=[2**62, 2**62, 0], offsets=[0, 0])}, b""),
    "rank of a thousand": image_of({"w": entry(shape=[*[1] * 1000, 4])}),
    "product that takes forever": image_of({"w": entry(shape=[10**4000] * 400)}),
    "one offset": image_of({"w": entry(offsets=[0])}),
    "three offsets": image_of({"w": entry(offsets=[0, 16, 16])}),
    "offsets are an object": image_of({"w": entry(offsets={"0": 1, "16": 2})}),
    "bool offset": image_of({"w": entry("U8", [1], [False, True])}, b"\0"),
    "negative offset": image_of({"w": entry(offsets=[-16, 0])}),
    "offsets swapped": image_of({"w": entry(offsets=[16, 0])}),
    "beyond the end": image_of({"w": entry(offsets=[4, 20])}),
    "far beyond the end": image_of({"w": entry(offsets=[2**62, 2**62 + 16])}),
    "overlap": image_of({"v": entry(), "w": entry(shape=[2], offsets=[8, 16])}),
    "the same place twice": image_of({"v": entry(), "w": entry()}),
    "hole at the start": image_of({"w": entry(shape=[3], offsets=[4, 16])}),
    "hole in the middle": image_of(
        {"v": entry(shape=[1], offsets=[0, 4]), "w": entry(shape=[2], offsets=[8, 16])}
    ),
    "rest at the end": image_of(GOOD, b"\0" * 17),
    "data cut short": image_of(GOOD, b"\0" * 15),
}


def test_the_good_header_is_read() -> None:
    assert torch.equal(WeightsImage(image_of(GOOD)).tensor("w"), torch.zeros(4))


@pytest.mark.parametrize("name", BAD)
def test_hostile_image_is_refused(name: str) -> None:
    """In bounded time: a rank of a thousand takes some 2,000 steps."""
    with pytest.raises(PackageError, match=r"the weights image ") as caught, steps(10_000):
        WeightsImage(BAD[name])
    assert caught.value.expected
    assert caught.value.remedy
    assert len(str(caught.value)) < 600


def test_mutated_headers_are_read_or_refused() -> None:
    """Whatever is read lies within the image: reading it is no access beyond its end."""
    rng = random.Random(0)
    tensors = {"a.weight": torch.randn(4, 3), "b": torch.randn(5).bfloat16(), "n": torch.ones(())}
    original = image_from_tensors(tensors).numpy().tobytes()
    header = 8 + int.from_bytes(original[:8], "little")
    refused = 0
    for _ in range(3000):
        data = bytearray(original)
        for _ in range(rng.randint(1, 3)):
            place = rng.randrange(header) if rng.random() < 0.9 else rng.randrange(len(data))
            action = rng.random()
            if action < 0.6:
                data[place] = (
                    rng.choice(b'0123456789[]{},:"-e. \xff') if place > 7 else rng.randrange(256)
                )
            elif action < 0.8:
                del data[place : place + rng.randint(1, 4)]
            else:
                data[place:place] = data[rng.randrange(len(data)) :][: rng.randint(1, 6)]
        try:
            image = WeightsImage(image_of_bytes(bytes(data)))
        except PackageError:
            refused += 1
        else:
            for name in image.names():
                np.asarray(image.tensor(name).reshape(-1).view(torch.uint8)).sum()
    assert 2000 < refused < 3000
