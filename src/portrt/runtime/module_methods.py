"""Methods of a compiled module that are those of any other module, where torch's own are not."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from torch.export import ExportedProgram

from portrt.errors import PortrtError, SettingsError

if TYPE_CHECKING:
    from portrt.runtime.new_weights.update import WeightsUpdate

logger = logging.getLogger(__name__)


def add_methods(module: torch.fx.GraphModule, program: ExportedProgram) -> None:
    """Give a module that torch made of a program its methods."""
    kind: Any = type(module)  # each such module has its own
    for name in ("train", "eval"):  # torch's refuse
        module.__dict__.pop(name, None)
    kind.train = _train
    kind.update_weights = _update_weights
    kind.__repr__ = kind.__str__ = _shown(program, "text_of")
    kind._repr_html_ = _shown(program, "html_of")
    kind._apply = _applied(program)
    kind.__deepcopy__ = _copied(program)
    kind.__reduce_ex__ = _reduced
    module.eval()


def _train(self: torch.nn.Module, mode: bool = True) -> torch.nn.Module:
    """As `torch.nn.Module.train` for `mode=False`."""
    if mode:
        raise SettingsError(
            "train() was called on a compiled program",
            "eval() or train(False): engines compute what the model did when it was compiled",
            "train the model itself, and compile it again",
        )
    return torch.nn.Module.train(self, False)


def _update_weights(
    self: torch.fx.GraphModule,
    state_dict: Mapping[str, Any],
    *,
    strict: bool = True,
    check: bool = True,
) -> WeightsUpdate:
    """As `portrt.runtime.new_weights.update.update_weights`; of this module, not of its copies."""
    from portrt.runtime.new_weights.update import update_weights  # rarely needed

    program, update = update_weights(self, state_dict, strict=strict, check=check)
    if update.changed:
        add_methods(self, program)
    return update


def _shown(program: ExportedProgram, form: str) -> Callable[[torch.nn.Module], str]:
    def shown(_module: torch.nn.Module) -> str:
        from portrt.runtime import module_text

        try:
            found: str = getattr(module_text, form)(program)
        except PortrtError as err:  # a manifest that no reader takes
            found = f"CompiledModule({err.happened})"
        return found

    return shown


def _applied(program: ExportedProgram) -> Callable[..., torch.nn.Module]:
    """Return `_apply`, through which `to`, `half`, `cuda` and a parent's go."""

    def _apply(
        self: torch.nn.Module, function: Callable[..., Any], recurse: bool = True
    ) -> torch.nn.Module:
        _check_dtypes(program, function)
        moved: torch.nn.Module = torch.nn.Module._apply(self, function, recurse)  # type: ignore[no-untyped-call]
        device = function(torch.empty(0)).device.type
        if device != "cpu":
            _say_what_stays(program, device)
        return moved

    return _apply


def _check_dtypes(program: ExportedProgram, function: Callable[..., Any]) -> None:
    """Raise SettingsError if a function would give a tensor of the program another dtype."""
    values = [node.meta.get("val") for node in program.graph.nodes]
    dtypes = {value.dtype for value in values if isinstance(value, torch.Tensor)}
    for dtype in sorted(filter(lambda it: it.is_floating_point, dtypes), key=str):
        other = function(torch.empty(0, dtype=dtype)).dtype
        if other != dtype:
            raise SettingsError(
                f"a compiled program of {dtype} was to become one of {other}",
                "its own dtypes: engines compute in those that they were compiled for",
                f"convert the model by .to({other}), and compile it again",
            )


def _say_what_stays(program: ExportedProgram, device: str) -> None:
    """Log the blocks of which no engine can follow to a device."""
    from portrt.runtime.report import report

    for block in report(program, device):
        if block.runs_as in ("", "eager"):
            logger.warning("moved to %s, where %s", device, block)


def _copied(program: ExportedProgram) -> Callable[..., torch.fx.GraphModule]:
    """Return `__deepcopy__`: the copy has states of its own, and the same engines."""

    def __deepcopy__(self: torch.fx.GraphModule, memo: dict[int, Any]) -> torch.fx.GraphModule:  # noqa: N807
        from portrt.runtime.new_weights.gate import copy_gate

        memo[id(program)] = program
        made: torch.fx.GraphModule = torch.fx.GraphModule.__deepcopy__(self, memo)
        add_methods(made, program)
        copy_gate(self, made)
        return made

    return __deepcopy__


def _reduced(self: torch.fx.GraphModule, _protocol: Any) -> tuple[Callable[..., Any], tuple[bytes]]:
    """Pickle as the bytes of a file: no code, and another process opens engines of its own."""
    from portrt.targets.backends import WRITER

    made: tuple[Callable[..., Any], tuple[bytes]] = import_module(WRITER).pickled(self)
    return made
