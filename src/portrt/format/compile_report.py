"""Report of a compilation: what is in engines, and what stays in PyTorch. Imports no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from portrt.format.engine_spec import in_parts
from portrt.format.json_fields import Fields


@dataclass(frozen=True)
class BlockCoverage:
    """Size of one block.

    Attributes:
        name: Name of the block.
        nodes: Number of operator calls in the block.
        flops: Number of its floating-point operations, see `CompileReport`.
    """

    name: str
    nodes: int
    flops: int


@dataclass(frozen=True)
class Fallback:
    """Calls of one operator that stay in PyTorch for one reason, from one line of the model.

    Attributes:
        operator: Name of the operator, such as "aten.nonzero.default".
        count: Number of calls.
        flops: Number of their floating-point operations.
        reason: Reason why they stay in PyTorch.
        remedy: What would change it; "" if there is no known remedy.
        source: "FILE:LINE in FUNCTION: CODE" of the model, or "" if torch recorded none.
        module: Module path of the first call.
        asked: Whether an option of the user keeps it in PyTorch.
    """

    operator: str
    count: int
    flops: int
    reason: str
    remedy: str
    source: str
    module: str
    asked: bool


@dataclass(frozen=True)
class MissingEngine:
    """An engine that was requested and could not be built, for a block that has another one."""

    block: str
    backend: str
    reason: str


@dataclass(frozen=True)
class PartialEngine:
    """An engine in parts: of a block that its backend does not take whole.

    Attributes:
        block: Name of the block.
        backend: Its backend.
        parts: Number of its parts.
        nodes: Number of operator calls in the block.
        nodes_in_engines: Number of these calls in its parts; PyTorch runs the others.
        reason: Operators that PyTorch runs, and why.
    """

    block: str
    backend: str
    parts: int
    nodes: int
    nodes_in_engines: int
    reason: str

    def __str__(self) -> str:
        words = in_parts(self.parts, self.nodes_in_engines, self.nodes)
        return f"{self.backend} takes {self.block} {words}: {self.reason}"


@dataclass(frozen=True)
class CompileReport:
    """Coverage by operator calls and by floating-point operations.

    Operations are those of matrix products, convolutions and attention at the sizes of the example
    inputs, as `torch.utils.flop_counter` counts them; other operators count none.

    Attributes:
        nodes: Number of operator calls of the lowered model that compute tensors.
        nodes_in_engines: Number of these calls in engines. A call counts if the engine that takes
            most of its block has it.
        flops: Number of floating-point operations of the model.
        flops_in_engines: Number of these operations in engines.
        blocks: The blocks, in the order of their calls.
        fallbacks: Operators that stay in PyTorch, by descending number of operations.
        missing_engines: Engines that could not be built for some blocks.
        partial_engines: Engines in parts.
    """

    nodes: int
    nodes_in_engines: int
    flops: int
    flops_in_engines: int
    blocks: tuple[BlockCoverage, ...]
    fallbacks: tuple[Fallback, ...]
    missing_engines: tuple[MissingEngine, ...] = ()
    partial_engines: tuple[PartialEngine, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain values for `json.dumps`."""
        found = dataclasses.asdict(self)
        if not self.partial_engines:
            del found["partial_engines"]
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in found.items()
        }

    @classmethod
    def from_json(cls, raw: Any) -> CompileReport:
        """Read the report of a file.

        Raises:
            PackageError: It is not a valid report.
        """
        top = Fields(raw, "the report", "/report")
        numbers = ("nodes", "nodes_in_engines", "flops", "flops_in_engines")
        return cls(
            **{name: top.integer(name) for name in numbers},
            blocks=_items(BlockCoverage, top, "blocks"),
            fallbacks=_items(Fallback, top, "fallbacks"),
            missing_engines=_items(MissingEngine, top, "missing_engines"),
            partial_engines=_items(PartialEngine, top, "partial_engines")
            if "partial_engines" in top.raw
            else (),
        )

    def summary(self) -> str:
        """Return the coverage in one line."""
        return (
            f"{self.nodes_in_engines} of {self.nodes} operators in {len(self.blocks)} "
            f"block{'' if len(self.blocks) == 1 else 's'} "
            f"({_percent(self.nodes_in_engines, self.nodes)}), "
            f"{_percent(self.flops_in_engines, self.flops)} of "
            f"{self.flops / 1e6:,.3f} million floating-point operations"
        )

    def lines(self) -> Iterator[str]:
        """Yield the lines of the report as text."""
        yield self.summary()
        for block in self.blocks:
            yield f"  {block.name}: {block.nodes} operators, {block.flops / 1e6:,.3f} million"
        if self.fallbacks:
            yield "in PyTorch:"
        for item in self.fallbacks:
            yield from (f"  {line}" for line in fallback_lines(item, self.flops))
        yield from map(str, self.partial_engines)
        for missing in self.missing_engines:
            yield f"no {missing.backend} engine for {missing.block}: {missing.reason}"


def fallback_lines(item: Fallback, total_flops: int) -> Iterator[str]:
    """Yield the lines of one fallback as text."""
    share = f", {_percent(item.flops, total_flops)} of the operations" if item.flops else ""
    times = f" x {item.count}" if item.count > 1 else ""
    yield f"{item.operator}{times}{share}: {item.reason}"
    if item.source:
        yield f"  at {item.source}"
    if item.module:
        yield f"  in {item.module}"
    if item.remedy:
        yield f"  do: {item.remedy}"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "100 %"


def _items(kind: Any, top: Fields, key: str) -> tuple[Any, ...]:
    return tuple(_item(kind, item, top.at(key, index)) for index, item in enumerate(top.items(key)))


def _item(kind: Any, raw: Any, path: str) -> Any:
    part = Fields(raw, f"a {kind.__name__} of the report", path)
    values: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        if field.type == "bool":
            values[field.name] = part.take(field.name, bool, "true or false")
        else:
            take = part.integer if field.type == "int" else part.text
            values[field.name] = take(field.name)
    return kind(**values)


def report_of_manifest(raw: Mapping[str, Any]) -> CompileReport | None:
    """Return the report of a manifest, or None."""
    return CompileReport.from_json(raw["report"]) if raw.get("report") is not None else None
