"""Programs small enough to take apart: an MLP with its call of the operator laid open."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

import portrt
from portrt.format.manifest import Blob, encode
from portrt.runtime.calls import engine_calls


class Mlp(nn.Module):
    """8 -> 16 -> 4, so that every weight but one bias is stored outside the engine."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 16)
        self.second = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x)))


@dataclass(frozen=True)
class Call:
    """One `execute_engine` call: its blobs, and its manifest as plain JSON values."""

    blobs: tuple[torch.Tensor, ...]
    entry: dict[str, Any]

    def __call__(self, *inputs: torch.Tensor) -> list[torch.Tensor]:
        return torch.ops.portrt.execute_engine(list(inputs), list(self.blobs), self.text)

    @property
    def text(self) -> str:
        return encode(self.entry)

    def edited(self, edit: Callable[[dict[str, Any]], Any]) -> Call:
        """The same blobs under an edited manifest."""
        entry = copy.deepcopy(self.entry)
        edit(entry)
        return replace(self, entry=entry)

    def with_blob(self, index: int, data: torch.Tensor) -> Call:
        """Another blob under the same manifest."""
        blobs = list(self.blobs)
        blobs[index] = data
        return replace(self, blobs=tuple(blobs))

    def resealed(self, index: int, data: torch.Tensor) -> Call:
        """Another blob, with size and digest in the manifest made to fit it."""
        made = Blob.of(index, data.numpy()).to_json()

        def edit(entry: dict[str, Any]) -> None:
            for holder in (entry, *entry["engines"]):
                for key in ("weights", "source", "data"):
                    held = holder.get(key)
                    if isinstance(held, dict) and held.get("blob") == index:
                        holder[key] = made

        return self.with_blob(index, data).edited(edit)

    def engine(self, backend: str) -> dict[str, Any]:
        """The manifest's entry of one engine."""
        return next(item for item in self.entry["engines"] if item["backend"] == backend)


def model() -> Mlp:
    """The MLP, the same each time."""
    torch.manual_seed(0)
    return Mlp().eval()


def compiled(*engines: str, dynamic: bool = True, **options: Any) -> ExportedProgram:
    """The MLP as a program; batch 1 to 32, or 3."""
    shape = {"min_shape": (1, 8), "opt_shape": (4, 8), "max_shape": (32, 8)}
    spec = portrt.Input(**shape) if dynamic else portrt.Input((3, 8))
    program = portrt.compile(
        model(),
        inputs=[spec],
        engines=engines or ("onnxruntime",),
        min_block_size=1,
        output_format="exported_program",
        **options,
    )
    assert isinstance(program, ExportedProgram)
    return program


@lru_cache
def shared(*engines: str) -> ExportedProgram:
    """`compiled`, once; not to be changed."""
    return compiled(*engines)


def call_of(program: ExportedProgram, index: int = 0) -> Call:
    """One call of a program, with blobs of its own."""
    node = list(engine_calls(program))[index]
    names = {spec.arg.name: spec.target for spec in program.graph_signature.input_specs}
    blobs = [program.constants[names[blob.name]].clone() for blob in node.args[1]]
    return Call(tuple(blobs), json.loads(node.args[2]))


def edit_program(program: ExportedProgram, edit: Callable[[dict[str, Any]], Any]) -> None:
    """Edit the manifest of the first call in place."""
    node = next(engine_calls(program))
    entry = json.loads(node.args[2])
    edit(entry)
    node.update_arg(2, encode(entry))
    program.graph_module.recompile()


def python(code: str, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run code in a new process, where a native crash would show as a negative exit code."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code), *args],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
