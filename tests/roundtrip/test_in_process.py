"""Every model of the registry, compiled and called, against the same model in eager PyTorch."""

from __future__ import annotations

import pytest
from harness import Compiled, assert_matches_eager, call
from models import CASES

from portrt.runtime.calls import engine_calls

pytestmark = pytest.mark.filterwarnings("ignore:The tensor attribute.*assigned during export")


@pytest.mark.parametrize("name", CASES)
def test_compiled_program_gives_the_answers_of_eager(name: str, compiled: Compiled) -> None:
    program = compiled.program(name)

    assert len(list(engine_calls(program))) == CASES[name].blocks
    assert_matches_eager(call(program.module(), CASES[name]), CASES[name])
