"""The cases of `conformance/manifests.json`."""

from __future__ import annotations

from typing import Any

import pytest
from stored_cases import cases_of, names_of

from portrt.errors import PackageError
from portrt.format.manifest import DataDependentSize, Dimension, Manifest, decode

CASES = cases_of("manifests")


def text_of(given: str | list[tuple[str, int]]) -> str:
    return given if isinstance(given, str) else "".join(piece * count for piece, count in given)


def size_facts(size: Any) -> Any:
    if isinstance(size, Dimension):
        profiles = {"profiles": [list(item) for item in size.profiles]} if size.profiles else {}
        return {
            "min": size.min,
            "opt": size.opt,
            "max": size.max,
            "symbol": size.symbol,
            **profiles,
        }
    if isinstance(size, DataDependentSize):
        return {"unknown": size.max, "symbol": size.symbol}
    return size


def facts_of(manifest: Manifest) -> dict[str, Any]:
    specs = {
        kind: [
            {"name": spec.name, "dtype": spec.dtype, "shape": [size_facts(s) for s in spec.shape]}
            for spec in getattr(manifest, kind)
        ]
        for kind in ("inputs", "outputs")
    }
    blobs = [manifest.weights, manifest.source, *(engine.data for engine in manifest.engines)]
    parts = {}
    if any(engine.parts for engine in manifest.engines):
        parts["parts"] = [
            [[part.name, part.engine.data.index] for part in engine.parts.engines]
            if engine.parts
            else None
            for engine in manifest.engines
        ]
    return {
        **parts,
        "format": manifest.format,
        "name": manifest.name,
        **specs,
        "engines": [engine.backend for engine in manifest.engines],
        "blobs": [None if blob is None else blob.index for blob in blobs],
        "blob_count": manifest.blob_count,
    }


def without_empty_profiles(facts: dict[str, Any]) -> dict[str, Any]:
    """An empty list of profiles is none."""
    for spec in facts["inputs"]:
        for size in spec["shape"]:
            if isinstance(size, dict) and not size.get("profiles", True):
                del size["profiles"]
    return facts


@pytest.mark.parametrize("case", CASES, ids=names_of(CASES))
def test_manifest(case: dict[str, Any]) -> None:
    text = text_of(case["manifest"])
    if case["valid"]:
        assert facts_of(decode(text)) == without_empty_profiles(case["facts"])
        return
    with pytest.raises(PackageError) as caught:
        decode(text)
    assert caught.value.field == case["field"], str(caught.value)
