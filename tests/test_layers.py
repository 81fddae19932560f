"""Who may import whom: layers from the ground up, no circles, and folders that do without torch."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import portrt

ROOT = Path(str(portrt.__file__)).parent

# Lowest first: a module imports from its own layer or from a lower one. The runtime reaches what
# builds engines by name alone (`targets.backends.REBUILDER`).
LAYERS = (
    ("errors", "verdict", "progress", "arguments", "forks"),
    ("targets",),
    ("cache", "format"),
    ("torch_internals",),
    ("graphs", "numerics", "weights"),
    ("engines",),
    ("runtime",),
    ("compiler",),
    ("files", "prebuilt"),
    ("diagnosis", "cpp", "torch_tensorrt"),
    ("cli",),
)
# The package itself resolves its public names at first use.
_FACADE = "portrt"
# Deployed processes and readers of files do without it.
WITHOUT_TORCH = (
    "errors",
    "verdict",
    "progress",
    "arguments",
    "forks",
    "targets",
    "cache",
    "format",
)


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def _imports(module: str) -> Iterator[tuple[str, int]]:
    """Every module that a module imports, with the line: at top, in functions, for types alone."""
    for node in ast.walk(ast.parse(SOURCES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: a relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield (inner if inner in SOURCES else str(node.module)), node.lineno


def _ours(module: str) -> set[str]:
    return {name for name, _ in _imports(module) if name in SOURCES and name != module}


def _layer(module: str) -> int:
    room = module.split(".")[1]
    return next(index for index, rooms in enumerate(LAYERS) if room in rooms)


MODULES = sorted(set(SOURCES) - {_FACADE})


def test_every_room_has_a_layer() -> None:
    assert {name.split(".")[1] for name in MODULES} == {room for rooms in LAYERS for room in rooms}


@pytest.mark.parametrize("room", [room for rooms in LAYERS for room in rooms])
def test_imports_point_downwards(room: str) -> None:
    upward = [
        f"{module}:{line} imports {name}"
        for module in MODULES
        if module.split(".")[1] == room
        for name, line in _imports(module)
        if name in SOURCES and name != _FACADE and _layer(name) > _layer(module)
    ]
    assert upward == []


def test_no_module_imports_the_facade() -> None:
    """But the command that compiles: it calls what its users would."""
    users = [module for module in MODULES if _FACADE in {name for name, _ in _imports(module)}]
    assert users in ([], ["portrt.cli.compile"])


def test_there_are_no_circles() -> None:
    """Of all imports together, those in functions and those for types included."""
    graph = {module: _ours(module) - {_FACADE} for module in MODULES}
    free: set[str] = set()
    while ready := {module for module in graph if graph[module] <= free} - free:
        free |= ready
    # What is left imports a circle or is in one; without those that nothing left imports, the rest
    # is the circles and what joins them.
    left = set(graph) - free
    while outer := {m for m in left if not any(m in graph[other] for other in left)}:
        left -= outer
    assert sorted(left) == []


@pytest.mark.parametrize("room", WITHOUT_TORCH)
def test_what_reads_files_imports_no_torch(room: str) -> None:
    """Not even for its types: a reader in another language has the same rules."""
    found = [
        f"{module}:{line}"
        for module in MODULES
        if module.split(".")[1] == room
        for name, line in _imports(module)
        if name.partition(".")[0] == "torch"
    ]
    assert found == []
