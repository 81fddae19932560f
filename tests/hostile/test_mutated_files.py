"""Files changed where it hurts, with right digests, opened by every function that takes a path.

`make hostile FILES=100000` tries as many as it is given.
"""

from __future__ import annotations

from pathlib import Path

from hostile_run import attack, write_bases

COUNT = 200


def test_changed_files_are_refused_or_run(tmp_path: Path) -> None:
    write_bases(tmp_path)
    faults, counts = attack(tmp_path, 0, COUNT, jobs=1)
    assert faults == []
    # The changes reach deep: many files pass the outer checks, and some pass all of them.
    assert counts["inspect accepted"] > COUNT / 3
    assert counts["load refused"] > COUNT / 10
    assert counts["call accepted"] > COUNT / 10
    assert counts["verify refused"] > COUNT / 20
