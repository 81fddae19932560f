"""Run user passes; each must leave a valid graph that computes the same outputs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram

from portrt import torch_internals
from portrt.compiler.options.settings import Settings
from portrt.errors import CheckError, LowerError
from portrt.numerics.compare import compare

logger = logging.getLogger(__name__)

Pass = Callable[[torch.fx.GraphModule], Any]


def run_user_passes(program: ExportedProgram, settings: Settings) -> None:
    """Run `settings.passes` on the graph of a lowered program, in place.

    Raises:
        LowerError: A pass fails, or leaves a graph that no exported program can have.
        CheckError: The program's outputs on its example inputs differ after a pass, unless
            `settings.check` accepts that.
    """
    wanted = _outputs(program, settings)
    for graph_pass in settings.passes:
        name = getattr(graph_pass, "__qualname__", repr(graph_pass))
        _run(graph_pass, name, program.graph_module)
        if wanted is not None:
            _compare(name, _outputs(program, settings), wanted, settings)


def _run(graph_pass: Pass, name: str, module: torch.fx.GraphModule) -> None:
    graph = module.graph
    names = torch_internals.placeholder_names(graph)
    known = set(graph.nodes)
    count = len(_results(graph))
    try:
        made = graph_pass(module)
        graph.lint()
    except Exception as err:
        raise LowerError(
            f"the pass {name} failed: {type(err).__name__}: {err}",
            "a function that changes a torch.fx.GraphModule in place",
            "correct the pass, or leave it out of passes",
        ) from err
    if getattr(made, "graph_module", made) not in (None, module):
        raise _wrong(name, "returned another module", "change the given module in place")
    if module.graph is not graph or torch_internals.placeholder_names(graph) != names:
        raise _wrong(name, "changed the inputs of the graph", "leave its placeholders as they are")
    if len(_results(graph)) != count:
        raise _wrong(name, "changed the number of outputs", "keep the number of outputs")
    graph.eliminate_dead_code()
    _add_values(name, graph, known)
    module.recompile()


def _results(graph: torch.fx.Graph) -> Sequence[Any]:
    results: Any = graph.output_node().args[0]
    return tuple(results)


def _wrong(name: str, what: str, remedy: str) -> LowerError:
    return LowerError(
        f"the pass {name} {what}", "the graph of an exported program, changed in place", remedy
    )


def _add_values(name: str, graph: torch.fx.Graph, known: set[torch.fx.Node]) -> None:
    """Give each new node a fake value in its meta, as nodes of exported programs have."""
    mode = torch_internals.fake_mode_of(graph)
    for node in graph.nodes:
        if node in known or node.op == "output":
            continue
        if node.op != "call_function":
            raise _wrong(
                name,
                f"added the node {node.name!r}, a {node.op}",
                "add operator calls only; torch.ops.aten.full makes a constant",
            )
        try:
            args, kwargs = torch.fx.map_arg((node.args, node.kwargs), lambda n: n.meta["val"])
            with mode:
                node.meta["val"] = node.target(*args, **kwargs)
        except Exception as err:
            raise LowerError(
                f"the pass {name} added an invalid call: {node.format_node()}: {err}",
                "operator calls with valid arguments",
                "correct the pass",
            ) from err


def _outputs(program: ExportedProgram, settings: Settings) -> tuple[Any, ...] | None:
    """Run the program on its example inputs; None if the check is off or there are none."""
    if settings.check == "off" or program.example_inputs is None:
        return None
    try:
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(0)
            return torch_internals.run_flat(program, program.example_inputs, lambda *_: None)
    except Exception:
        logger.warning("passes are not checked: the model fails on its inputs", exc_info=True)
        return None


def _compare(
    name: str, got: tuple[Any, ...] | None, wanted: tuple[Any, ...], settings: Settings
) -> None:
    if got is None:
        raise _wrong(name, "left a graph that fails on the example inputs", "correct the pass")
    for index, (one, other) in enumerate(zip(got, wanted, strict=True)):
        if not isinstance(other, torch.Tensor):
            continue
        kind = (one.dtype, one.shape) if isinstance(one, torch.Tensor) else None
        if kind != (other.dtype, other.shape):
            raise _wrong(name, f"changed dtype or shape of output {index}", "keep both")
        row = compare(str(index), one, other)
        if row["ok"]:
            continue
        fact = (
            f"the pass {name} changes output {index} of the model: largest difference "
            f"{row['max_abs']}, relative {row['max_rel']}"
        )
        if settings.check != "accept":
            raise CheckError(
                fact,
                f"a relative difference up to {row['tolerance']}",
                "correct the pass, or compile with check='accept'",
            )
        logger.warning("%s; accepted", fact)
