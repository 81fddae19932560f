"""The fixtures that all tests share."""

from __future__ import annotations

import os

import pytest
from harness import Compiled


def pytest_configure() -> None:
    """No test takes from the user's cache, or writes to it, nor does a process that one starts."""
    os.environ["PORTRT_CACHE_DIR"] = "off"


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """Programs of the models of tests/models.py."""
    return Compiled(tmp_path_factory.mktemp("programs"))
