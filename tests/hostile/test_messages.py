"""What an error says of a program that torch cannot read: the call and the cause, in few words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile_mutations import Program
from tiny import shared

import portrt
from portrt.errors import LoadError, PackageError
from portrt.runtime import policy

NOWHERE = {"as_tensor": {"name": "nowhere"}}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("messages") / "model.pt2"
    portrt.save(shared("onnxruntime"), path)
    return path.read_bytes()


def _in_call(program: Program) -> None:
    program.argument(program.calls[0], "inputs")["as_tensors"][0]["name"] = "nowhere"


def _in_source(program: Program) -> None:
    def change(data: bytes) -> bytes:
        inner = Program(data)
        inner.graph["nodes"][0]["inputs"][0]["arg"] = NOWHERE
        return inner.data()

    call = program.calls[0]
    program.change_blob(call, program.manifest(call)["source"], change)


@pytest.mark.parametrize(
    ("edit", "kind", "names"),
    [
        (_in_call, LoadError, "in a call of torch.ops.portrt.execute_engine.default: KeyError"),
        (_in_source, PackageError, "in a call of torch.ops.aten.linear.default: KeyError"),
    ],
    ids=["program", "source"],
)
def test_an_unknown_name_is_an_error_of_a_line(
    edit: Callable[[Program], Any], kind: Any, names: str, whole: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "a.pt2"
    program = Program(whole)
    edit(program)
    path.write_bytes(program.data())
    with policy(engines=()), pytest.raises(kind, match="nowhere") as caught:
        portrt.load(path).module()(torch.ones(3, 8))
    assert names in caught.value.happened
    assert "\n" not in caught.value.happened
    assert len(caught.value.happened) < 300 + len(str(path))
