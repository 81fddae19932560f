"""Tables in a terminal of 80 columns: each line fits, and each word is whole."""

from __future__ import annotations

import pytest

from portrt.cli.tables import print_table


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("long", [3, 30, 90])
def test_words_are_whole_and_lines_fit(
    width: int, long: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    words = ["x" * long, "some words with spaces between them", "conv2d_21_nchwc", "1.69e-07"]
    columns = ["#", "max abs error", "layer", "where", "result"]
    rows = [["7", *words], ["12", *reversed(words)]]

    print_table(columns, rows, "a title")

    lines = capsys.readouterr().out.splitlines()
    text = " ".join(lines)
    for word in (*columns, *(cell for row in rows for cell in row)):
        for part in word.split():
            assert part in text
    for line in lines:  # a word that is longer than the terminal has a line of its own
        assert len(line) <= max(width, long + len("    max abs error: "))
    assert lines[0].strip() == "a title"


def test_a_table_without_rows(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["first", "second"], [])
    assert "second" in capsys.readouterr().out
