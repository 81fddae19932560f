"""Make sizes and numbers that follow from the data of constants known.

torch.export takes the data of a buffer for unknown even if nothing writes to it: `item()` of it is
a new symbol, and the elements that a mask picks have a size that depends on data. Here `item()`
becomes a number, the mask of an index becomes positions, and any other operator with such a size a
constant. Decomposition traces the program again, so that every size that follows is a number too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.export import ExportedProgram

from portrt.compiler.sizes import data_sizes
from portrt.graphs import nested
from portrt.graphs.added_constants import AddedConstants
from portrt.graphs.known_values import KnownValues, constant_tensors

aten = torch.ops.aten

# They state of a number what is known once it is.
_STATEMENTS = {
    aten._assert_scalar.default,
    aten.sym_constrain_range.default,
    aten.sym_constrain_range_for_size.default,
}
_MASKS = (torch.bool, torch.uint8)
_INDEXED = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default)


def constant_data(
    program: ExportedProgram,
    *,
    immutable_weights: bool = True,
    folded: set[str] | None = None,
) -> ExportedProgram:
    """Replace what a program reads from the data of its constants.

    Args:
        program: Not modified; returned as it is if it reads nothing from them. In the result the
            fake values of the nodes after those that were replaced are not up to date.
        immutable_weights: Whether parameters and buffers are among the constants.
        folded: Gets the names of those that were read.
    """
    if not any(_reads_data(node) for node in program.graph.nodes):
        return program
    module = nested.copied(program.graph_module)
    held = constant_tensors(program, immutable_weights=immutable_weights)
    tensors = {name: tensor for name, (_, tensor) in held.items()}
    known = KnownValues(module.graph, tensors)
    added = AddedConstants(module.graph)
    nodes = [node for node in module.graph.nodes if node.op == "call_function"]
    replaced = []
    for node in nodes:
        read = _placeholders_read(node, known)
        if _replace(node, known, added):
            replaced.append(node)
            if folded is not None:
                folded |= {held[name][0] for name in read}
    if not replaced:
        return program
    for node in reversed(nodes):
        is_stated = node.target in _STATEMENTS and node.args[0] is not False
        if not node.users and (node in known or (is_stated and not node.all_input_nodes)):
            module.graph.erase_node(node)
    module.graph.lint()
    module.recompile()
    return added.program(program, module)


def _replace(node: torch.fx.Node, known: KnownValues, added: AddedConstants) -> bool:
    """Replace a node, or masks that it takes, if its size or value follows from constants."""
    if not _reads_data(node):
        return False
    if node in known:
        return _replace_value(node, known, added)
    if node.target in _INDEXED:
        return _replace_masks(node, known, added)
    return False


def _placeholders_read(node: torch.fx.Node, known: KnownValues) -> set[str]:
    """Return the names of the placeholders whose data `_replace` reads."""
    if not _reads_data(node):
        return set()
    given: Any = [node] if node in known or node.target not in _INDEXED else node.args[1]
    return {
        source.name
        for item in given
        if item is not None and item in known
        for source in known.sources(item)
        if source.op == "placeholder"
    }


def _reads_data(node: torch.fx.Node) -> bool:
    """Return whether a size depends on data, or a node takes masks that ONNX does not."""
    if node.target in _INDEXED:
        given: Any = node.args[1]
        values = [index.meta["val"] for index in given if index is not None]
        masks = [value.dtype for value in values if value.dtype in _MASKS]
        if masks and (len(values) > 1 or masks[0] == torch.uint8):
            return True
    return bool(data_sizes.symbols_of(node.meta.get("val")))


def _replace_value(node: torch.fx.Node, known: KnownValues, added: AddedConstants) -> bool:
    outside = [user for user in node.users if user not in known]
    if not outside or any(user.op == "output" for user in outside):
        return False
    try:
        value = known.of(node)
    except Exception:  # the model fails in the same way, where it runs
        return False
    if isinstance(value, torch.Tensor):
        value = added.add(node.name, value)
    elif not isinstance(value, (int, float)):
        return False
    for user in outside:
        user.args, user.kwargs = torch.fx.map_arg(
            (user.args, user.kwargs), lambda item: value if item is node else item
        )
    return True


def _replace_masks(node: torch.fx.Node, known: KnownValues, added: AddedConstants) -> bool:
    given: Any = node.args[1]
    indices: list[Any] = []
    for position, index in enumerate(given):
        mask = known.of(index) if index is not None and index in known else None
        if mask is None or mask.dtype not in _MASKS or mask.dim() == 0:
            indices.append(index)
            continue
        columns = mask.nonzero().unbind(1)
        indices += [
            added.add(f"{node.name}_{position}_{axis}", column)
            for axis, column in enumerate(columns)
        ]
    node.args = (node.args[0], indices, *node.args[2:])
    return indices != list(given)
