"""docs/operators.md: where each core ATen operator runs. `make operators` builds and writes it.

    python -m ops.report            # writes the page from the table and the stored builds
    python -m ops.report --build    # builds with TensorRT-RTX first, and stores what became of it
    python -m ops.report --build aten.add.Tensor    # builds the rows of this operator alone

The column of ONNX Runtime is what the rows of the table promise, and tests/ops/test_operators.py
holds every row to it. TensorRT-RTX builds take minutes, so their outcome is stored with its date.
"""

from __future__ import annotations

import datetime as dt
import json
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from ops.case import Case
from ops.core import NO_TENSORS, OUTSIDE, core_operators
from ops.judge import judge
from ops.tables import ALL_CASES

PAGE = Path(__file__).parents[2] / "docs" / "operators.md"
RESULTS = Path(__file__).parent / "results" / "tensorrt_rtx.json"
# Rows of an operator that are built, and the dtypes that TensorRT-RTX is asked for.
_MAX_ROWS = 4
_DTYPES = ("f32", "f16", "i64", "bool")
# Rows in one program.
_AT_ONCE = 12


def rows_of(op: str) -> list[Case]:
    return [case for case in ALL_CASES if case.op == op]


def rows_to_build(op: str) -> list[Case]:
    """The first rows of each dtype in turn, of those that are in an engine of ONNX Runtime."""
    rows = [case for case in rows_of(op) if not case.stays]
    by_dtype = [[c for c in rows if c.variant.startswith(f"{d}-")] for d in _DTYPES]
    turns = [cases[turn] for turn in range(_MAX_ROWS) for cases in by_dtype if turn < len(cases)]
    return turns[:_MAX_ROWS]


def build(ops: list[str]) -> None:
    """Build the rows of these operators, or of every core one; store what became of each."""
    found: dict[str, Any] = json.loads(RESULTS.read_text())["rows"] if ops else {}
    cases = [case for op in ops or core_operators() for case in rows_to_build(op)]
    for start in range(0, len(cases), _AT_ONCE):
        part = cases[start : start + _AT_ONCE]
        for case, outcome in judge(part, "tensorrt_rtx").items():
            said = "" if outcome.engine else outcome.reason or outcome.wrong
            found.setdefault(case.op, {})[case.variant] = " ".join(said.split())[:400]
        _store(found)
        sys.stdout.write(f"{start + len(part)} of {len(cases)} rows\n")
        sys.stdout.flush()


def _store(found: dict[str, Any]) -> None:
    RESULTS.parent.mkdir(exist_ok=True)
    stored = {
        "date": dt.datetime.now(tz=dt.timezone.utc).date().isoformat(),
        "torch": metadata.version("torch").partition("+")[0],
        "tensorrt_rtx": metadata.version("tensorrt-rtx-cu13"),
        "rows": found,
    }
    RESULTS.write_text(json.dumps(stored, indent=1, sort_keys=True) + "\n")


def page() -> str:
    """The page, from the table and the stored builds."""
    stored = json.loads(RESULTS.read_text())
    lines, here, rtx, whole, with_tensors = [], 0, 0, 0, 0
    for op in core_operators():
        if op in NO_TENSORS:
            lines.append(f"| `{op}` | no tensor: {NO_TENSORS[op]} | |")
            continue
        with_tensors += 1
        rows = rows_of(op)
        kept = [case for case in rows if not case.stays]
        built = stored["rows"].get(op, {})
        passed = sum(not said for said in built.values())
        here += bool(kept)
        rtx += bool(passed)
        whole += bool(passed) and passed == len(built)
        lines.append(f"| `{op}` | {_here(op, rows, kept)} | {_built(built, passed)} |")
    return _HEAD.format(
        here=here,
        rtx=rtx,
        whole=whole,
        whole_percent=100 * whole / with_tensors,
        all=with_tensors,
        here_percent=100 * here / with_tensors,
        rtx_percent=100 * rtx / with_tensors,
        **{name: stored[name] for name in ("date", "torch", "tensorrt_rtx")},
        table="\n".join(lines),
    )


def _here(rows_op: str, rows: list[Case], kept: list[Case]) -> str:
    reasons = "; ".join(dict.fromkeys(case.stays for case in rows if case.stays))
    if not rows:
        return f"in PyTorch: {OUTSIDE[rows_op]}"
    if not kept:
        return f"in PyTorch: {reasons}"
    if len(kept) == len(rows):
        return f"engine ({len(rows)})"
    return f"engine ({len(kept)} of {len(rows)}; the rest: {reasons})"


def _built(built: dict[str, str], passed: int) -> str:
    if not built:
        return "not tried"
    if passed == len(built):
        return f"built ({passed})"
    said = next(text for text in built.values() if text).replace("|", "/")[:160]
    return f"{f'built ({passed} of {len(built)})' if passed else 'in PyTorch'}: {said}"


_HEAD = """# Core ATen operators

Made by `make operators` from the table in `tests/ops`; do not edit. A row of that table is one call
of an operator, with dtypes, ranks, broadcasting, empty and 0-d tensors and dynamic sizes.

| | operators | of {all} that return tensors |
| --- | --- | --- |
| in an engine of ONNX Runtime, with eager's numbers | {here} | {here_percent:.1f} % |
| built by TensorRT-RTX | {rtx} | {rtx_percent:.1f} % |
| built by TensorRT-RTX in every row that was tried | {whole} | {whole_percent:.1f} % |

Among those outside are the random ones (`rand`, `randn`, `randperm`), which draw from torch's
generator; they count as outside. An operator counts as inside when at least one of its rows is; the
table has the rows that are not, with the reason.

*onnxruntime*: rows of the table in an engine, compared with eager by `tests/ops` in CI.
*tensorrt_rtx*: up to four rows, in float32, float16, int64 and bool where there are such, built
until {date} with TensorRT-RTX {tensorrt_rtx} and torch {torch}; no engine was run. The ONNX models
that were rewritten for it were run by ONNX Runtime and give eager's numbers.

Not promised: where NaN meets a maximum, a minimum, `argmax`, `argmin`, or a sort, engines may take
another element than PyTorch does.

| operator | onnxruntime | tensorrt_rtx |
| --- | --- | --- |
{table}
"""


def main() -> None:
    if "--build" in sys.argv[1:]:
        build([name for name in sys.argv[1:] if name != "--build"])
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
