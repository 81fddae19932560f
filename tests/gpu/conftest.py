"""Tests that need an NVIDIA GPU: `pytest tests/gpu`. Where there is none they are skipped."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="torch.cuda.is_available() is false: there is no NVIDIA GPU")
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(skip)
