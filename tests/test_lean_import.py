"""What importing brings with it: each claim in a new process."""

from __future__ import annotations

import pytest
import torch
from tiny import python, shared

HEAVY = (
    "onnx",
    "onnxscript",
    "onnx_ir",
    "onnxruntime",
    "tensorrt",
    "tensorrt_rtx",
    "rich",
    "click",
)


def modules_after(code: str, *args: str, **env: str) -> set[str]:
    done = python(f"import sys\n{code}\nprint(*sys.modules)", *args, **env)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def tops(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("lean") / "tiny.pt2"
    torch.export.save(shared("tensorrt_rtx", "onnxruntime"), path)
    return str(path)


def test_torch_brings_the_operator_and_few_of_our_modules() -> None:
    modules = modules_after("import torch\ntorch.ops.portrt.execute_engine.default")
    assert {name for name in modules if name.partition(".")[0] == "portrt"} == {
        "portrt",
        "portrt.arguments",
        "portrt.errors",
        "portrt.runtime",
        "portrt.runtime.op",
        "portrt.runtime.policy",
        "portrt.runtime.process_state",
        "portrt.runtime.report",
    }
    assert not tops(modules) & set(HEAVY)


def test_the_operator_costs_torch_no_module_of_others() -> None:
    """Against the same import with the entry point switched off."""
    bare = modules_after("import torch", TORCH_DEVICE_BACKEND_AUTOLOAD="0")
    assert not any(name.startswith("portrt") for name in bare)
    added = modules_after("import torch") - bare
    assert {name for name in added if not name.startswith("portrt")} == set()


@pytest.mark.parametrize(
    "name", ["portrt", "portrt.runtime", "portrt.errors", "portrt.compiler.options.settings"]
)
def test_a_light_import_is_light(name: str) -> None:
    assert not tops(modules_after(f"import {name}")) & set(HEAVY)


def test_importing_runtime_imports_no_builder() -> None:
    modules = modules_after("import portrt.runtime")
    assert not {name for name in modules if name.startswith("portrt.compiler")}


def test_loading_and_running_in_an_engine_imports_onnxruntime_alone(saved: str) -> None:
    code = "import torch\ntorch.export.load(sys.argv[1]).module()(torch.ones(2, 8))"
    loaded = tops(modules_after(code, saved)) & set(HEAVY)
    assert loaded == {"onnxruntime"}


def test_loading_and_running_the_source_imports_no_engine(saved: str) -> None:
    code = "import torch\ntorch.export.load(sys.argv[1]).module()(torch.ones(2, 8))"
    loaded = tops(modules_after(code, saved, PORTRT_ENGINES="")) & set(HEAVY)
    assert loaded == set()


def test_the_operator_is_there_where_torch_loads_no_backends(saved: str) -> None:
    code = """
import torch, portrt
portrt.load
torch.export.load(sys.argv[1]).module()(torch.ones(2, 8))
    """
    modules_after(code.strip(), saved, TORCH_DEVICE_BACKEND_AUTOLOAD="0")


def test_file_tools_work_where_torch_loads_no_backends(saved: str) -> None:
    code = """
from portrt import files
import torch
files.verify(sys.argv[1], inputs=[torch.ones(2, 8)])
files.profile(sys.argv[1], inputs=[torch.ones(2, 8)])
    """
    modules_after(code.strip(), saved, TORCH_DEVICE_BACKEND_AUTOLOAD="0")


def test_the_report_works_where_torch_loads_no_backends() -> None:
    code = "import torch\nfrom portrt.runtime import report\nreport(torch.nn.Linear(1, 1))"
    modules_after(code, TORCH_DEVICE_BACKEND_AUTOLOAD="0")


def test_every_module_of_the_runtime_imports_on_its_own() -> None:
    """No hidden cycle, and the operator is there: each is the first import of ours."""
    names = ["portrt.runtime.block", "portrt.format.manifest", "portrt.engines.eager"]
    names += ["portrt.torch_tensorrt"]
    for name in names:
        modules_after(f"import {name}", TORCH_DEVICE_BACKEND_AUTOLOAD="0")
