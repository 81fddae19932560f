"""lower: rewrite a program to fewer kinds of operators; `GRAPH_PASSES` is the order of passes."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection

from torch.export import ExportedProgram

from portrt.compiler.convert.translations import resolved
from portrt.compiler.lower.constant_data import constant_data
from portrt.compiler.lower.decompose import decompose
from portrt.compiler.lower.distinct_operands import distinct_operands
from portrt.compiler.lower.drop_metadata_asserts import drop_metadata_asserts
from portrt.compiler.lower.drop_size_asserts import drop_size_asserts
from portrt.compiler.lower.explicit_dtypes import explicit_dtypes, with_explicit_dtypes
from portrt.compiler.lower.hoist_sizes import hoist_sizes
from portrt.compiler.lower.keep_attention import keep_attention
from portrt.compiler.lower.lift_nested_constants import lift_nested_constants
from portrt.compiler.lower.low_precision import convert_low_precision_first
from portrt.compiler.lower.name_nested_nodes import name_nested_nodes
from portrt.compiler.lower.shape_conditions import shape_conditions
from portrt.compiler.lower.unalias_constants import unalias_constants
from portrt.compiler.lower.user_passes import run_user_passes
from portrt.compiler.lower.view_to_reshape import view_to_reshape
from portrt.compiler.lower.without_raw_views import without_raw_views
from portrt.compiler.options.settings import Settings
from portrt.graphs import nested

logger = logging.getLogger(__name__)

GRAPH_PASSES = (
    drop_metadata_asserts,
    keep_attention,
    hoist_sizes,
    shape_conditions,
    view_to_reshape,
    convert_low_precision_first,
    explicit_dtypes,
)


def lower(
    program: ExportedProgram,
    settings: Settings | None = None,
    whole: Collection[str] = (),
    folded: set[str] | None = None,
) -> ExportedProgram:
    """Decompose, then run each of `GRAPH_PASSES` on the graph and on the graphs of its branches.

    User passes run last, on the outermost graph.

    Args:
        program: The captured program; not modified.
        settings: Read for immutable_weights, translations, passes and check.
        whole: Names of nodes of `program` that are not decomposed.
        folded: Gets the names of parameters and buffers whose data is in the program from then on.

    Raises:
        LowerError: A user pass fails, or leaves a graph that no exported program can have.
        CheckError: A user pass changes the model's outputs.
    """
    started = time.perf_counter()
    settings = settings or Settings()
    program = with_explicit_dtypes(without_raw_views(program))
    program = constant_data(
        unalias_constants(program), immutable_weights=settings.immutable_weights, folded=folded
    )
    program = distinct_operands(lift_nested_constants(program))
    lowered = decompose(program, resolved(settings.translations), whole)
    for target, _ in resolved(settings.translations):
        if _calls(program, target) and not _calls(lowered, target):
            logger.warning(
                "the translation of %s is not used: torch decomposes the operator first", target
            )
    drop_size_asserts(lowered)
    for graph_pass in GRAPH_PASSES:
        for graph_module in nested.graph_modules(lowered.graph_module):
            graph_pass(graph_module)
    name_nested_nodes(lowered.graph_module)
    if settings.passes:
        run_user_passes(lowered, settings)
    seconds = time.perf_counter() - started
    logger.info("lowered to %d nodes in %.2f s", len(lowered.graph.nodes), seconds)
    return lowered


def _calls(program: ExportedProgram, target: object) -> bool:
    return any(node.target is target for node in nested.all_nodes(program.graph_module))
