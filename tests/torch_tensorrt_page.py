"""The tables of docs/torch_tensorrt.md, from the parameters and names of the package.

`python tests/torch_tensorrt_page.py` writes them.
"""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import portrt.torch_tensorrt as torch_tensorrt
from portrt.torch_tensorrt.missing import MISSING
from portrt.torch_tensorrt.parameters import NO_EFFECT, OLDER, PARAMETERS, REFUSED, WORKS

# Names that take what Torch-TensorRT's take, and warn.
WARN_ALONE = {
    *("enable_pre_allocated_outputs", "weight_streaming", "runtime.runtime_cache"),
    *("runtime.RuntimeSettings", "runtime.set_dynamic_shapes_kernel_strategy"),
}
PAGE = Path(__file__).parent.parent / "docs" / "torch_tensorrt.md"
_MARK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def updated(page: str) -> str:
    """The page with its tables as the package has them."""
    tables = {"parameters": _parameters(), "older": _older(), "names": _names()}
    return _MARK.sub(lambda found: f"{found[1]}\n{tables[found[2]]}\n\n{found[3]}", page)


def _parameters() -> str:
    count = Counter(item.state for item in PARAMETERS.values())
    counted = f"{count[WORKS]} work, {count[NO_EFFECT]} have no effect, {count[REFUSED]} is refused"
    rows = [["parameter", "default", "state", "here"], ["---"] * 4]
    rows += [
        [f"`{item.name}`", _default(item.default), item.state, item.here]
        for item in PARAMETERS.values()
    ]
    return f"Of {len(PARAMETERS)} parameters {counted}.\n\n{_table(rows)}"


def _default(value: Any) -> str:
    if value is ...:
        return ""
    if isinstance(value, Path):
        return "in the temporary folder"
    return "empty" if value == frozenset() else f"`{value!r}`"


def _older() -> str:
    rows = [["option", "here"], ["---"] * 2]
    return _table([*rows, *([f"`{name}`", here] for name, here in OLDER.items())])


def _names() -> str:
    rows = [["name", "state", "here"], ["---"] * 3]
    rows += [
        [f"`{name}`", NO_EFFECT if name in WARN_ALONE else WORKS, _summary(found)]
        for name, found in _public()
    ]
    rows += [[f"`{name}`", "missing", way] for name, way in MISSING.items()]
    return _table(rows)


def _public() -> Iterator[tuple[str, Any]]:
    for name in sorted(torch_tensorrt.__all__):
        found = getattr(torch_tensorrt, name)
        if not isinstance(found, ModuleType):
            yield name, found
    for module in (torch_tensorrt.dynamo, torch_tensorrt.runtime, torch_tensorrt.logging):
        short = module.__name__.rpartition(".")[2]
        for name in sorted(module.__all__):
            if short != "runtime" or name not in torch_tensorrt.__all__:
                yield f"{short}.{name}", getattr(module, name)


def _summary(found: Any) -> str:
    text = inspect.getdoc(found if callable(found) else type(found)) or ""
    return " ".join(text.partition("\n\n")[0].split())


def _table(rows: list[list[str]]) -> str:
    lines = (" | ".join(cell.replace("|", "\\|") for cell in row) for row in rows)
    return "\n".join(f"| {line} |" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
