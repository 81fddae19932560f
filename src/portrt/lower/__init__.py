"""lower: fewer kinds of operators, same meaning. The list below is the order of the passes."""

from __future__ import annotations

import logging
import time

from torch.export import ExportedProgram

from portrt.lower.decompose import decompose
from portrt.lower.drop_metadata_asserts import drop_metadata_asserts
from portrt.lower.hoist_sizes import hoist_sizes
from portrt.lower.unalias_constants import unalias_constants
from portrt.lower.view_to_reshape import view_to_reshape

logger = logging.getLogger(__name__)

GRAPH_PASSES = (drop_metadata_asserts, hoist_sizes, view_to_reshape)


def lower(program: ExportedProgram) -> ExportedProgram:
    """Decompose, then run each of `GRAPH_PASSES` on the graph. `program` is not changed."""
    started = time.perf_counter()
    lowered = decompose(unalias_constants(program))
    for graph_pass in GRAPH_PASSES:
        graph_pass(lowered.graph_module)
    seconds = time.perf_counter() - started
    logger.info("lowered to %d nodes in %.2f s", len(lowered.graph.nodes), seconds)
    return lowered
