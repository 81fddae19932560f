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
    for name in ("to", "half", "float", "double", "bfloat16", "type"):
        setattr(kind, name, _converting(program, name))
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


def _converting(program: ExportedProgram, name: str) -> Callable[..., torch.nn.Module]:
    """Return a method that converts a module, and raises where it would change a dtype."""

    def convert(self: torch.nn.Module, *args: Any, **kwargs: Any) -> torch.nn.Module:
        def converted(tensor: torch.Tensor) -> torch.Tensor:
            stand_in = torch.nn.Module()
            stand_in.register_buffer("tensor", tensor)
            found: torch.Tensor = getattr(stand_in, name)(*args, **kwargs).tensor
            return found

        if changed := _changed_dtype(program, converted):
            raise SettingsError(
                f"a compiled program of {changed[0]} was to become one of {changed[1]}",
                "its own dtypes: engines compute in those that they were compiled for",
                f"convert the model by .to({changed[1]}), and compile it again",
            )
        made: torch.nn.Module = getattr(torch.nn.Module, name)(self, *args, **kwargs)
        return made

    return convert


def _applied(program: ExportedProgram) -> Callable[..., torch.nn.Module]:
    """Return `_apply`, through which all conversions go, and those of a parent."""

    def _apply(
        self: torch.nn.Module, function: Callable[..., Any], recurse: bool = True
    ) -> torch.nn.Module:
        if changed := _changed_dtype(program, function):
            # An error would leave the parent's other children converted.
            logger.warning(
                "a compiled program of %s stays one, and does not become one of %s: convert the "
                "model before it is compiled",
                *changed,
            )
            return self
        moved: torch.nn.Module = torch.nn.Module._apply(self, function, recurse)  # type: ignore[no-untyped-call]
        device = function(torch.empty(0)).device.type
        if device != "cpu":
            _say_what_stays(program, device)
        return moved

    return _apply


def _changed_dtype(
    program: ExportedProgram, convert: Callable[[torch.Tensor], torch.Tensor]
) -> tuple[torch.dtype, torch.dtype] | None:
    """Return a floating-point dtype of the program that a conversion changes, and the other one."""
    values = [node.meta.get("val") for node in program.graph.nodes]
    dtypes = {value.dtype for value in values if isinstance(value, torch.Tensor)}
    for dtype in sorted((item for item in dtypes if item.is_floating_point), key=str):
        other = convert(torch.empty(0, dtype=dtype)).dtype
        if other != dtype:
            return dtype, other
    return None


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
