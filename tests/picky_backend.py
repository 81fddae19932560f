"""A backend that refuses what a test wants, by rule or in a build; its engines are ONNX Runtime's.

`register` makes it known for one test.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import pytest
import torch

import portrt
from portrt import files
from portrt.compiler.backends.base import BuildInput
from portrt.compiler.backends.onnxruntime.build import OnnxRuntimeBuilder
from portrt.compiler.options.settings import Settings
from portrt.compiler.plan import Engine
from portrt.engines.onnxruntime.runtime import OnnxRuntimeRuntime
from portrt.errors import BuildError
from portrt.format.manifest import EngineSpec
from portrt.graphs import nested
from portrt.targets import backends
from portrt.targets.backends import BackendInfo
from portrt.verdict import YES, Verdict

NAME = "picky"


class Picky:
    """What it refuses: operators such as "aten.cumsum.default".

    Attributes:
        takes: Taken, although ONNX Runtime's builder refuses them by rule.
        by_rule: Refused before a block is made.
        in_builds: Refused by the builder, which names the node.
        silently: Refused by the builder, which names nothing.
        wrong: Types of ONNX nodes -> what the engine computes instead, of equal length.
        built: Operators of each engine that it built, sorted.
    """

    takes: frozenset[str] = frozenset()
    by_rule: frozenset[str] = frozenset()
    in_builds: frozenset[str] = frozenset()
    silently: frozenset[str] = frozenset()
    wrong: Mapping[str, str] = MappingProxyType({})
    built: ClassVar[list[list[str]]] = []


class Builder(OnnxRuntimeBuilder):
    name = NAME

    def supports(self, node: torch.fx.Node) -> Verdict:
        if str(node.target) in Picky.by_rule:
            return Verdict.no("unsupported_operator", f"{NAME} has no {node.target}", "wait")
        return YES if str(node.target) in Picky.takes else super().supports(node)

    def build(self, build_input: BuildInput, settings: Settings) -> Engine:
        nodes = list(nested.all_nodes(build_input.block.program.graph_module))
        for node in nodes:
            if str(node.target) in Picky.in_builds:
                fact = f"{NAME} refuses node_{node.name}: it has no kernel"
                raise BuildError(fact, "other operators", "name it in torch_executed_ops")
            if str(node.target) in Picky.silently:
                raise BuildError(f"{NAME} crashed", "a builder that does not", "try again")
        Picky.built.append(sorted(str(node.target) for node in nodes if nested.is_operator(node)))
        engine = super().build(build_input, settings)
        data = engine.data
        for kind, other in Picky.wrong.items():
            data = data.replace(_op_type(kind), _op_type(other))
        return dataclasses.replace(engine, backend=NAME, data=data)


def _op_type(name: str) -> bytes:
    """Return the field of a NodeProto: number 4, a text."""
    return b"\x22" + bytes([len(name)]) + name.encode()


class Runtime(OnnxRuntimeRuntime):
    name = NAME

    def accepts(self, engine: EngineSpec, device: torch.device) -> Verdict:
        return self.can_run(device.type)


def register(
    monkeypatch: pytest.MonkeyPatch,
    *,
    takes: Iterable[str] = (),
    by_rule: Iterable[str] = (),
    in_builds: Iterable[str] = (),
    silently: Iterable[str] = (),
    wrong: Mapping[str, str] | None = None,
) -> type[Picky]:
    """Make the backend known, and set what it refuses."""
    row = BackendInfo(
        name=NAME,
        runtime=f"{__name__}:Runtime",
        builder=f"{__name__}:Builder",
        libraries=("onnxruntime",),
    )
    monkeypatch.setitem(backends.BUILT_IN, NAME, row)
    values: dict[str, Any] = {"takes": takes, "by_rule": by_rule}
    values |= {"in_builds": in_builds, "silently": silently}
    for name, found in values.items():
        monkeypatch.setattr(Picky, name, frozenset(found))
    monkeypatch.setattr(Picky, "wrong", wrong or {})
    monkeypatch.setattr(Picky, "built", [])
    return Picky


class Product(torch.nn.Module):
    """A product of integers, which ONNX Runtime's builder leaves to PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.arange(32.0).reshape(8, 4) / 32)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = torch.relu(x @ self.weight) + 1
        return y * 2, (y * 8).to(torch.int64).prod(1) + 1


def save_in_parts(path: Path) -> None:
    """Save a file whose only engine is ONNX Runtime's, in two parts: it needs no other backend."""
    with pytest.MonkeyPatch.context() as patch:
        register(patch, takes=["aten.prod.dim_int"])
        program = portrt.compile(
            Product().eval(),
            inputs=[torch.ones(3, 8)],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=16)},),
            engines=(NAME, "onnxruntime"),
            min_block_size=1,
            output_format="exported_program",
        )
        portrt.save(program, path)
        files.strip(path, engine=NAME)
