"""`portrt::execute_engine` in C++, beside the Python kernel: see `kernel_cases`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from portrt.cpp.build import Built

SCRIPT = Path(__file__).parent / "kernel_cases.py"
NAMES = re.findall(r"^@case\ndef (\w+)", SCRIPT.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.fixture(scope="module")
def outcomes(built: Built) -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", SCRIPT, built.library],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SCRIPT.parents[1])},
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("name", NAMES)
def test_case(name: str, outcomes: dict[str, str]) -> None:
    assert outcomes[name] == ""
