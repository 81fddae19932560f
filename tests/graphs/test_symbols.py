"""Sizes of torch.export as expression trees and as graph nodes, against torch's own arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from models import lambda_module
from torch.export import Dim

from portrt.format import size_expr
from portrt.graphs import symbols


def exported(
    function: Callable[..., Any], *shapes: tuple[int, ...], dims: Any
) -> torch.export.ExportedProgram:
    inputs = tuple(torch.randn(shape) for shape in shapes)
    return torch.export.export(lambda_module(function)(), inputs, dynamic_shapes=dims)


def placeholders_of(program: torch.export.ExportedProgram) -> list[torch.fx.Node]:
    return list(program.graph.find_nodes(op="placeholder"))


SIZES: dict[str, Callable[[Any, Any], Any]] = {
    "dim": lambda n, k: n,
    "constant": lambda n, k: 3,
    "sum": lambda n, k: n + k,
    "product": lambda n, k: n * k + 2,
    "difference": lambda n, k: n + 30 - k,
    "floordiv": lambda n, k: (n + 3) // 2,
    "mod": lambda n, k: n % 3 + 5,
    "power": lambda n, k: n * n * n,
    "minimum": lambda n, k: torch.sym_min(n, k),
    "maximum": lambda n, k: torch.sym_max(n, k),
    "nested": lambda n, k: ((n - 1) // 2 + 1) * (k // 3 + 1),
    "ceiling": lambda n, k: -(-n // 4) + 3,
}


@pytest.mark.parametrize("name", SIZES)
def test_a_tree_has_the_value_that_python_computes(name: str) -> None:
    size = SIZES[name]

    def zeros(x: torch.Tensor) -> torch.Tensor:
        return torch.zeros(size(x.shape[0], x.shape[1]))

    dims = ({0: Dim("n", min=2, max=20), 1: Dim("k", min=2, max=20)},)
    program = exported(zeros, (5, 7), dims=dims)
    known = symbols.dimensions_of(placeholders_of(program))
    (result,) = program.graph.output_node().args[0]
    tree = symbols.tree_of_size(result.meta["val"].shape[0], known)

    size_expr.check(tree, [2], "the tree")
    for shape in ((5, 7), (2, 3), (13, 11), (20, 2), (9, 9)):
        assert size_expr.evaluate(tree, lambda _, axis, s=shape: s[axis]) == size(*shape)


@pytest.mark.parametrize("name", SIZES)
def test_emitted_nodes_have_the_value_that_python_computes(name: str) -> None:
    size = SIZES[name]

    def zeros(x: torch.Tensor) -> torch.Tensor:
        return torch.zeros(size(x.shape[0], x.shape[1]))

    dims = ({0: Dim("n", min=2, max=20), 1: Dim("k", min=2, max=20)},)
    program = exported(zeros, (5, 7), dims=dims)
    (like,) = placeholders_of(program)
    (result,) = program.graph.output_node().args[0]
    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    x.meta["val"] = like.meta["val"]
    tree = symbols.tree_of_size(result.meta["val"].shape[0], symbols.dimensions_of([like]))
    graph.output(symbols.emit(graph, tree, [x]))
    module = torch.fx.GraphModule(torch.nn.Module(), graph)

    for shape in ((5, 7), (2, 3), (20, 2)):
        assert module(torch.empty(shape)) == size(*shape)


@pytest.mark.parametrize(
    ("dim", "example"),
    [
        (2 * Dim("n", min=2, max=8), 6),
        (Dim("n", min=2, max=8) + 1, 4),
        (3 * Dim("n", min=1, max=8) - 1, 5),
    ],
    ids=["scaled", "shifted", "both"],
)
def test_the_root_of_a_derived_dim_can_be_computed(dim: Any, example: int) -> None:
    program = exported(lambda x: x * 2, (example,), dims=({0: dim},))
    (x,) = placeholders_of(program)
    known = symbols.dimensions_of([x])
    (symbol,) = x.meta["val"].shape[0].node.expr.free_symbols

    assert symbols.knows(symbol, known)
    root = x.meta["val"].shape[0].node.shape_env.create_symintnode(symbol, hint=None)
    value = size_expr.evaluate(symbols.tree_of_size(root, known), lambda *_: example)
    assert x.meta["val"].shape[0].node.expr.subs(symbol, value) == example


def test_a_size_that_depends_on_data_has_no_tree() -> None:
    program = exported(lambda x: torch.nonzero(x), (5,), dims=({0: Dim("n", max=20)},))
    (result,) = program.graph.output_node().args[0]
    known = symbols.dimensions_of(placeholders_of(program))

    assert symbols.tree_of_size(result.meta["val"].shape[0], known) is None


@pytest.mark.parametrize(
    ("dim", "wanted"),
    [
        (Dim("n", min=1, max=9), (1, 9)),
        (Dim("n", min=3), (3, None)),
        (Dim("n"), (0, None)),
        (Dim.AUTO, (2, None)),
    ],
    ids=["both", "least", "none", "auto"],
)
def test_ranges_are_those_of_the_program(dim: Any, wanted: tuple[int, int | None]) -> None:
    program = exported(lambda x: x * 2, (5,), dims=({0: dim},))
    (x,) = placeholders_of(program)

    assert symbols.range_of(x.meta["val"].shape[0], program.range_constraints) == wanted
