"""The C++ runtime, by the name that these tests have for it."""

from __future__ import annotations

import pytest

from portrt.cpp.build import Built


@pytest.fixture(scope="session")
def built(cpp_runtime: Built) -> Built:
    return cpp_runtime
