"""Verdict: a code from a closed list, and "ok" for a yes alone."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any, get_args

import pytest

from portrt.verdict import CODES, YES, Code, Verdict

FORMAT_PAGE = Path(__file__).parents[1] / "docs/format.md"


def test_every_code_has_its_line() -> None:
    assert tuple(CODES) == get_args(Code)
    assert all(line.endswith(".") and "\n" not in line for line in CODES.values())


def test_the_format_page_has_every_code_in_order() -> None:
    text = FORMAT_PAGE.read_text(encoding="utf-8").partition("## Verdicts")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == list(CODES)


def test_a_yes_is_ok_and_says_what_was_found() -> None:
    assert YES and YES.code == "ok"
    assert str(Verdict.yes("fake 1.0")) == "yes: fake 1.0"


def test_a_no_has_code_reason_and_remedy() -> None:
    verdict = Verdict.no("wrong_gpu", "built for 8.9", "use such a GPU")
    assert not verdict
    assert (verdict.code, str(verdict)) == ("wrong_gpu", "no: built for 8.9 (use such a GPU)")
    assert pickle.loads(pickle.dumps(verdict)) == verdict


@pytest.mark.parametrize(
    ("ok", "code"), [(False, "ok"), (True, "policy"), (False, "no_such_code"), (False, "")]
)
def test_the_code_goes_with_the_answer(ok: bool, code: Any) -> None:
    with pytest.raises(ValueError, match=f"verdict .* with the code {code!r}"):
        Verdict(ok, code, "reason")
