"""Plans with a source: captures it as one block, and matches its values with the bindings."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram

from portrt.compiler.backends.support import tensors_of
from portrt.compiler.capture import capture
from portrt.compiler.inputs import Input
from portrt.compiler.lower import lower
from portrt.compiler.options.settings import Settings
from portrt.compiler.partition import partition
from portrt.compiler.plan import Plan
from portrt.compiler.sizes import data_sizes
from portrt.compiler.sizes.tuning import sizes_to_tune_for
from portrt.errors import PartitionError, SettingsError
from portrt.graphs.program_inputs import flat_signature
from portrt.prebuilt.bindings import check_names
from portrt.verdict import YES, Verdict

Source = torch.nn.Module | ExportedProgram


def argument_names_of(source: Source) -> list[str]:
    """Return the names of the source's arguments, in call order.

    Raises:
        SettingsError: The source is no module and no program.
    """
    if isinstance(source, ExportedProgram):
        return flat_signature(source)
    if not isinstance(source, torch.nn.Module):
        raise SettingsError(
            f"the source is a {type(source).__module__}.{type(source).__qualname__}",
            "a torch.nn.Module or a torch.export.ExportedProgram",
            "give the model that the plan was built from",
        )
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(source.forward).parameters.values()
    return [item.name for item in parameters if item.kind in kinds]


def plan_of_source(
    source: Source, inputs: Mapping[str, torch.Tensor | Input], dynamic_shapes: Any
) -> tuple[ExportedProgram, Plan]:
    """Capture the source, and make it one block.

    Args:
        source: A model that computes the same as the plan.
        inputs: Binding name -> example tensor or `Input`, in call order.
        dynamic_shapes: Dynamic shapes as in `torch.export.export`.

    Returns:
        The program as captured, and its plan.

    Raises:
        SettingsError: The inputs are not those of the source.
        CaptureError: torch.export cannot capture the source.
        PartitionError: A part of the source can be in no engine: no plan computes all of it.
    """
    values = list(inputs.values())
    captured = capture(source, values, dynamic_shapes=dynamic_shapes, narrow=False)
    names = flat_signature(captured)
    if len(names) != len(values):
        raise SettingsError(
            f"{len(values)} inputs were given for a source that takes {', '.join(names)}",
            "one for each, in call order",
            "name a binding of the plan for each input of the source",
        )
    settings = Settings(min_block_size=1, require_full_compilation=True)
    ranges = sizes_to_tune_for(captured, values, None)

    def supports(node: torch.fx.Node) -> Verdict:
        """Reject data-dependent sizes: they are supported for plans without a source alone."""
        return data_sizes.REFUSED if data_sizes.any_data_dependent(tensors_of(node)) else YES

    plan = partition(lower(captured), settings, supports, profile_ranges=ranges)
    if len(plan.blocks) != 1:
        raise PartitionError(
            f"the source is {len(plan.blocks)} blocks",
            "one block: a plan computes everything at once",
            "give a source that computes what the plan does, and nothing else",
        )
    return captured, plan


def input_bindings(plan: Plan, captured: ExportedProgram, names: Sequence[str]) -> list[str]:
    """Find the binding of each input of the block.

    Args:
        plan: A plan of one block.
        captured: The program before it was lowered.
        names: Binding of each input of the program.

    Raises:
        SettingsError: The source does not use an input, or needs a value that is no input.
    """
    binding = dict(zip(flat_signature(captured), names, strict=True))
    arguments: Any = _call(plan).args  # all of them nodes
    taken = [node.name for node in arguments]
    for name in taken:
        if name not in binding:
            raise SettingsError(
                f"the source needs {name!r}, which changes between calls and is no input",
                "a source whose results depend on its inputs alone",
                "make it an input of the source",
            )
    unused = [binding[name] for name in binding if name not in taken]
    if unused:
        raise SettingsError(
            f"the source does not use {', '.join(map(repr, unused))}",
            "a source that computes its results from every binding of the plan",
            "leave it out of inputs, or give a source that uses it",
        )
    return [binding[name] for name in taken]


def output_bindings(
    plan: Plan, captured: ExportedProgram, outputs: Any, names: Sequence[str] | None
) -> list[str]:
    """Find the binding of each output of the block.

    Args:
        plan: A plan of one block.
        captured: The program before it was lowered.
        outputs: None, or a mapping from binding names, in the order of the source's outputs.
        names: Binding names, in the same order; None takes the mapping's, or the keys of a dict
            that the source returns.

    Raises:
        SettingsError: The names are missing, or do not fit what the source returns.
    """
    results = [_block_output(plan, result) for result in _results(plan)]
    found = _output_names(captured, outputs, names)
    if len(found) != len(results):
        raise SettingsError(
            f"the source returns {len(results)} tensors, and {len(found)} output names were given: "
            f"{', '.join(found)}",
            "the binding of each tensor, in order",
            "give output_names=[...], or a mapping in outputs",
        )
    if sorted(results) != list(range(len(plan.blocks[0].outputs))):
        raise SettingsError(
            "the source returns one of its inputs, or one tensor twice",
            "distinct results, which a plan computes",
            "give a source that returns each output of the plan once",
        )
    if isinstance(outputs, Mapping):
        _check_examples(plan, dict(zip(found, results, strict=True)), outputs)
    by_index = dict(zip(results, found, strict=True))
    return [by_index[index] for index in sorted(by_index)]


def _output_names(
    captured: ExportedProgram, outputs: Any, names: Sequence[str] | None
) -> list[str]:
    if names is not None:
        return check_names(names, "output")
    if isinstance(outputs, Mapping):
        return check_names(outputs, "output")
    if outputs is not None:
        raise SettingsError(
            f"outputs is a {type(outputs).__qualname__}, and there is a source",
            "None, or a mapping from binding names: shapes come from the source",
            "give output_names=[...] alone",
        )
    spec = captured.call_spec.out_spec
    if spec is not None and spec.type is dict and all(s.is_leaf() for s in spec.children()):
        return check_names(spec.context, "output")
    raise SettingsError(
        "the names of the plan's outputs are not known",
        "output_names=[...], one for each tensor that the source returns",
        "give output_names",
    )


def _check_examples(plan: Plan, results: Mapping[str, int], outputs: Mapping[str, Any]) -> None:
    """Check that examples given with a source have the dtypes and ranks of its results."""
    for name, example in outputs.items():
        spec = plan.blocks[0].outputs[results[name]]
        if not isinstance(example, torch.Tensor):
            continue
        dtype = str(example.dtype).removeprefix("torch.")
        if dtype != spec.dtype or example.dim() != len(spec.shape):
            raise SettingsError(
                f"output {name!r} is {dtype} of rank {example.dim()} in outputs, and "
                f"{spec.dtype} of rank {len(spec.shape)} in the source",
                "a source that returns what the plan returns",
                "correct one of them",
            )


def _call(plan: Plan) -> torch.fx.Node:
    calls: list[torch.fx.Node] = [
        node for node in plan.graph_module.graph.nodes if node.op == "call_module"
    ]
    return calls[0]


def _results(plan: Plan) -> list[Any]:
    results: Any = plan.graph_module.graph.output_node().args[0]
    return list(results)


def _block_output(plan: Plan, result: Any) -> int:
    """Return the index of a result in the block's outputs; -1 if the block does not compute it."""
    if not isinstance(result, torch.fx.Node) or result.target is not operator.getitem:
        return -1
    value, index = result.args
    return int(str(index)) if value is _call(plan) else -1
