"""The source uses the field's terms in docstrings, comments and messages.

`test_documents.py` has the same check for README, CHANGELOG and docs.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "portrt"

# Folders and files that are checked. Add others as soon as they pass.
CLEAN_ROOMS = (
    "__init__.py",
    "arguments.py",
    "cache",
    "cli",
    "diagnosis.py",
    "engines",
    "files",
    "runtime",
    "compiler",
    "errors.py",
    "format",
    "graphs",
    "numerics",
    "prebuilt",
    "progress.py",
    "targets",
    "torch_internals",
    "torch_tensorrt",
    "verdict.py",
    "weights.py",
)

# Words that are not the field's; behind each what to write instead.
FOREIGN = (
    r"\bwhole numbers?\b",  # integer
    r"\bthe data decide[sd]?\b|\bdecided by (?:the )?data\b",  # data-dependent size
    r"\b(?:smallest|least), best\b",  # min, opt, max
    r"\btold\b|\btells?\b",  # gets, passes, shows
    r"\bsa(?:id|ys?)\b",  # shows, reports, requires, logs
    r"\bask(?:s|ed|ing)?\b",  # requested, required
    r"\banswer(?:s|ed)?\b",  # returns, raises, works around
    r"\b(?:no|some)body\b|\bwhoever\b",
    r"\bwill do\b",  # is within the tolerance
    r"\bvouch(?:es|ed)?\b",  # trusts
    r"\bwithout a word\b",  # silently
    r"\b(?:own|parser's|builder's|library's) words\b",  # message
    r"\btak(?:e|es|en|ing) (?:\w+ )?apart\b",  # decompose, split
    r"\bin the places? of\b",  # instead of
    r"\bother numbers\b",  # different outputs
    r"\bthrown? away\b",  # discarded
    r"\bturned round\b",  # inverted
    r"\bcode for the CPU\b",  # host code
    r"\badopt(?:s|ed|ing)?\b",  # prebuilt engine, from_plan
    r"\bnarrow (?:numbers|dtypes)\b",  # low precision, quantized
    r"\b(?:process|builder)\w* of (?:its|their) own\b",  # separate process
    r"\bmend(?:s|ed|ing)?\b",  # fix
    r"\bholds? (?:back|against)\b|\bheld (?:to|against)\b",  # compare with
    r"\bwraps? round\b|\bwrapping round\b",  # wrap around
    r"\blook(?:s|ed)? after\b",  # manage
    r"\blikewise\b",
    r"\brightly\b",  # correctly
)

# A docstring states what a function does: "Return whether", not "Whether".
NO_VERBS = frozenset({"What", "Whether", "Likewise", "Where", "Who", "How"})


def _files() -> list[Path]:
    rooms = [PACKAGE / room for room in CLEAN_ROOMS]
    return sorted(
        file for room in rooms for file in (room.rglob("*.py") if room.is_dir() else [room])
    )


def _texts(source: str) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of comments, docstrings and literals of more than one word."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value


def _public_functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        is_function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        if is_function and not node.name.startswith("_"):
            yield node


def test_rooms_exist() -> None:
    assert all((PACKAGE / room).exists() for room in CLEAN_ROOMS)


@pytest.mark.parametrize("file", _files(), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_terms_are_those_of_the_field(file: Path) -> None:
    """Code in backquotes and names of arguments and attributes may be any word."""
    found = []
    for line, text in _texts(file.read_text(encoding="utf-8")):
        plain = " ".join(re.sub(r"``?[^`]*``?|^ *\w+:", "", text, flags=re.MULTILINE).split())
        for word in FOREIGN:
            found += [f"{line}: {m.group()}" for m in re.finditer(word, plain, re.IGNORECASE)]
    assert not found


@pytest.mark.parametrize("file", _files(), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_docstrings_begin_with_a_verb(file: Path) -> None:
    """As far as a list of words shows: a capital letter, and none of `NO_VERBS`."""
    found = []
    for function in _public_functions(ast.parse(file.read_text(encoding="utf-8"))):
        first = (ast.get_docstring(function) or "").split(" ", 1)[0]
        if first and (not first[0].isupper() or first in NO_VERBS):
            found.append(f"{function.lineno}: {function.name}: {first}")
    assert not found
