"""The tables of docs/options.md, from the fields that declare the options.

`python tests/options_page.py` writes them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from portrt.compiler.options.backend_options import built_in_owners
from portrt.compiler.options.compile_options import SettingsKeywords
from portrt.compiler.options.fields import Option, default_text, options_of
from portrt.compiler.options.settings import Settings
from portrt.compiler.options.torch_tensorrt import (
    PRECISION_SYNONYMS,
    USE_PYTHON_RUNTIME,
    WITHOUT_MEANING,
)

PAGE = Path(__file__).parent.parent / "docs" / "options.md"
_MARK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def updated(page: str) -> str:
    """The page with its tables as the fields have them."""
    tables = {"shared": _options(Settings, shared=True), "torch_tensorrt": _torch_tensorrt()}
    tables |= {names[0]: _options(cls, shared=False) for cls, names in built_in_owners().items()}
    return _MARK.sub(lambda found: f"{found[1]}\n{tables[found[2]]}\n\n{found[3]}", page)


def _options(cls: type, *, shared: bool) -> str:
    columns = ["option", "purpose", "value", "default", "rebuilds"]
    columns += ["one engine"] if shared else []
    rows = [_row(option, shared=shared) for option in options_of(cls).values()]
    return _table([columns, ["---"] * len(columns), *rows])


def _row(option: Option, *, shared: bool) -> list[str]:
    kind = 'Literal["module", "exported_program"]'  # a parameter of `compile`
    if option.name in SettingsKeywords.__annotations__:
        annotation: Any = SettingsKeywords.__annotations__[option.name]
        kind = annotation.__forward_arg__
    default = default_text(option.default)
    default = default if default == "empty" else f"`{default}`"
    default += f": {option.unset}" if option.unset else ""
    marks = [option.rebuilds, option.per_engine] if shared else [option.rebuilds]
    marked = ["yes" if mark else "no" for mark in marks]
    return [f"`{option.name}`", option.help, f"`{kind}`", default, *marked]


def _torch_tensorrt() -> str:
    rows = [[f"`{name}`", "sets `precision`"] for name in PRECISION_SYNONYMS]
    chooses = "False has the C++ runtime [call the program's engines](cpp.md#in-python)"
    rows += [[f"`{USE_PYTHON_RUNTIME}`", chooses]]
    rows += [[f"`{name}`", f"no effect: {reason}"] for name, reason in WITHOUT_MEANING.items()]
    return _table([["option", "here"], ["---", "---"], *rows])


def _table(rows: list[list[str]]) -> str:
    lines = (" | ".join(cell.replace("|", "\\|") for cell in row) for row in rows)
    return "\n".join(f"| {line} |" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
