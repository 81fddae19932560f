"""An engine is found again only if no code that decides what it is has changed."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import tiny

import portrt
from portrt.compiler.building import code_closure
from portrt.compiler.building.code_closure import import_closure

PACKAGE = Path(str(portrt.__file__)).parent
BUILDERS = {
    "onnxruntime": "portrt.compiler.backends.onnxruntime.build",
    "tensorrt": "portrt.compiler.backends.tensorrt.tensorrt",
    "tensorrt_rtx": "portrt.compiler.backends.tensorrt.tensorrt_rtx",
}

COMPILE = """
import logging, sys, torch, portrt
assert portrt.__file__.startswith(sys.argv[1]), portrt.__file__
model = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.ReLU()).eval()
torch.nn.init.ones_(model[0].weight), torch.nn.init.zeros_(model[0].bias)
portrt.compile(model, inputs=[torch.ones(2, 8)], engines="onnxruntime", min_block_size=1,
               cache_dir=sys.argv[2])
"""


@pytest.mark.parametrize("builder", BUILDERS.values(), ids=list(BUILDERS))
def test_far_modules_are_in_the_closure(builder: str) -> None:
    import importlib

    importlib.import_module(builder)
    closure = set(import_closure(builder))
    assert {
        builder,
        "portrt",
        "portrt.compiler.backends",
        "portrt.format.size_expr",
        "portrt.torch_internals.exporter",
        "portrt.torch_internals.programs",
    } <= closure
    rooms = {name.partition(".")[2].partition(".")[0] for name in closure}
    assert not rooms & {"cli", "files", "prebuilt", "diagnosis"}


def test_what_every_build_runs_is_in_the_closure() -> None:
    closure = import_closure(*code_closure._ROOTS)
    for name in ("compiler.convert.onnx_from_block", "compiler.building.precision", "weights"):
        assert f"portrt.{name}" in closure
    worker = closure["portrt.compiler.backends.tensorrt.worker.build_engine"]
    assert worker.name == "build_engine.py"


def test_imports_count_but_those_for_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = {
        "__init__.py": "",
        "a.py": "def f():\n    from closure_probe.inner import b\n",
        "inner/__init__.py": "from . import c as other\n",
        "inner/b.py": (
            "from typing import TYPE_CHECKING\n"
            "if TYPE_CHECKING:\n    import closure_probe.types_only\n"
            "else:\n    import closure_probe.real\n"
        ),
        "inner/c.py": "import json\nfrom ..d import something\n",
        "d.py": "something = 1\n",
        "real.py": "",
        "types_only.py": "",
        "unused.py": "",
    }
    for name, text in sources.items():
        path = tmp_path / "closure_probe" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    import closure_probe  # type: ignore[import-not-found]

    try:
        closure = import_closure("closure_probe.a")
    finally:
        del sys.modules[closure_probe.__name__]
    named = ("", ".a", ".inner", ".inner.b", ".inner.c", ".d", ".real")
    assert set(closure) == {f"closure_probe{name}" for name in named}


@pytest.mark.parametrize(
    ("use", "named"),
    [
        ("import closure_lazy as lazy", ("", ".a")),
        ("from closure_lazy import thing", ("", ".a")),
        ("from closure_lazy import b", ("", ".b")),
        ("from closure_lazy.b import x", ("", ".b")),
    ],
)
def test_a_lazy_package_counts_where_its_names_are_used(
    use: str, named: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    init = (
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from closure_lazy.a import thing\n"
        "def __getattr__(name):\n    from . import types\n"
    )
    sources = {"__init__.py": init, "a.py": "thing = 1\n", "b.py": "x = 1\n", "types.py": ""}
    for name, text in {**sources, "user.py": f"{use}\n"}.items():
        path = tmp_path / "closure_lazy" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    import closure_lazy  # type: ignore[import-not-found]

    try:
        closure = import_closure("closure_lazy.user")
    finally:
        del sys.modules[closure_lazy.__name__]
    found = {name.removeprefix("closure_lazy") for name in closure}
    assert found == {".user", ".types", *named}


def changed_compile(root: Path, cache: Path, module: str = "") -> list[str]:
    """The cache's entries after a compile by a copy of the sources with one module changed."""
    shutil.copytree(PACKAGE, root / "portrt", ignore=shutil.ignore_patterns("__pycache__"))
    if module:
        with (root / "portrt" / module).open("a") as file:
            file.write("\n# a change\n")
    done = tiny.python(COMPILE, str(root), str(cache), PYTHONPATH=str(root))
    assert done.returncode == 0, done.stderr
    return [path.name for path in cache.glob("v*/*") if path.is_dir()]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache after a compile by the sources as they are."""
    folder = tmp_path_factory.mktemp("unchanged")
    entries = changed_compile(folder, folder / "cache")
    assert sum(name.startswith("engine") for name in entries) == 1
    return folder / "cache"


@pytest.mark.parametrize(
    ("module", "engines"),
    [("format/size_expr.py", 2), ("graphs/nested.py", 2), ("cli/run.py", 1)],
    ids=["far", "near", "unrelated"],
)
def test_a_change_of_a_far_module_is_a_miss(
    module: str, engines: int, cache: Path, tmp_path: Path
) -> None:
    """The program is compiled again in each case; its engine is built again where it must be."""
    shutil.copytree(cache, tmp_path / "cache")
    entries = changed_compile(tmp_path, tmp_path / "cache", module)
    assert sum(name.startswith("program") for name in entries) == 2
    assert sum(name.startswith("engine") for name in entries) == engines
