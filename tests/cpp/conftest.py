"""The C++ runtime, built once for the same sources, torch and compiler."""

from __future__ import annotations

from pathlib import Path

import pytest

from portrt.cpp.build import Built, build
from portrt.cpp.compiler import compiler
from portrt.errors import BuildError


@pytest.fixture(scope="session")
def built() -> Built:
    try:
        compiler()
    except BuildError as err:
        pytest.skip(err.happened)
    return build(Path(__file__).parents[2] / "build" / "cpp-runtime")
