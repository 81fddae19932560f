"""What the tests of the operator table share."""

from __future__ import annotations

from collections.abc import Iterator

import onnxruntime
import pytest


@pytest.fixture(scope="module")
def quiet() -> Iterator[None]:
    """ONNX Runtime without its words: an engine that fails is the test's to report."""
    onnxruntime.set_default_logger_severity(4)
    yield
    onnxruntime.set_default_logger_severity(2)
