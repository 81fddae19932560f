"""The fixtures that all tests share."""

from __future__ import annotations

import pytest
from harness import Compiled


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """Programs of the models of tests/models.py."""
    return Compiled(tmp_path_factory.mktemp("programs"))
