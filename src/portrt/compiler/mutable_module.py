"""A model that is compiled when it is called, and stays the model: its weights may change."""

from __future__ import annotations

import contextlib
import inspect
import logging
import threading
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim
from torch.utils import _pytree as pytree

from portrt import forks
from portrt.compiler.compile import compile as compile_model
from portrt.compiler.options.settings import Settings
from portrt.compiler.package.save import save
from portrt.errors import InputError, LoadError, PortrtError, SettingsError
from portrt.runtime.load import load

logger = logging.getLogger(__name__)

# What nn.Module looks tensors and submodules up in: those of the model, so that names are the same.
_SHARED = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")
_MAX_KNOWN = 1024


class _Program:
    """A compiled module, and the versions of the weights that it has."""

    def __init__(self, module: torch.nn.Module, versions: Any) -> None:
        self.module: Any = module
        self.versions = versions


class MutableModule(torch.nn.Module):
    """Runs a model compiled, from the first call on, and follows what is done to the model.

    Parameters, buffers and submodules are the model's own, and so is every other attribute, such as
    `config` or `dtype`: it takes the place of the model, as in
    `pipe.unet = portrt.MutableModule(pipe.unet)`. New weights (`load_state_dict`, changes in place,
    new tensors) are seen at the next call and need no build; new sizes, arguments or dtypes are
    compiled when they are first seen, where sizes that varied become dynamic. In training mode the
    model runs in PyTorch.

    Changes through `tensor.data` in place have no version that PyTorch counts: call
    `refresh_weights` after those. Buffers that the model itself updates belong to each compiled
    program.

    Args:
        model: The model, in eval mode when it is compiled. Not copied.
        **options: Options of `portrt.compile`.

    Raises:
        SettingsError: An option is unknown or has an invalid value.
    """

    def __init__(self, model: torch.nn.Module, **options: Any) -> None:
        super().__init__()
        if not isinstance(model, torch.nn.Module) or isinstance(model, MutableModule):
            raise SettingsError(
                f"MutableModule was given a {type(model).__qualname__}",
                "a torch.nn.Module that is not compiled",
                "give the model itself",
            )
        Settings.from_options({**options, "output_format": "module"})
        self.__dict__["_model"] = model
        for name in _SHARED:
            self.__dict__[name] = model.__dict__[name]
        self.training = model.training
        self._options = options
        self._programs: list[_Program] = []
        self._known: dict[Any, _Program] = {}
        self._seen: dict[Any, list[tuple[torch.Size, ...]]] = {}
        self._fresh = 0
        self._lock = forks.renewed(threading.RLock())

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["_model"], name)

    def train(self, mode: bool = True) -> MutableModule:
        """As `torch.nn.Module.train`; in training mode the model runs in PyTorch."""
        super().train(mode)
        self.__dict__["_model"].training = mode
        return self

    def refresh_weights(self) -> None:
        """Take the weights anew at the next call, after changes that PyTorch does not count."""
        self._fresh += 1

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program for these arguments, compiled now if there is none."""
        model = self.__dict__["_model"]
        if self.training or torch.compiler.is_compiling():
            return model(*args, **kwargs)
        leaves, structure = pytree.tree_flatten((args, kwargs))
        kinds = tuple(_kind(leaf) for leaf in leaves)
        shapes = tuple(leaf.shape for leaf in leaves if isinstance(leaf, torch.Tensor))
        key = (str(structure), kinds, shapes)
        with self._lock:
            program = self._known.get(key)
            if program is None or not self._follows(program):
                program, output = self._run_first(args, kwargs, key)
                if len(self._known) >= _MAX_KNOWN:
                    self._known.clear()
                self._known[key] = program
                return output
        return program.module(*args, **kwargs)

    def _versions(self) -> Any:
        tensors = [*self.named_parameters(), *self.named_buffers()]
        state = [(name, id(item), item._version, item.data_ptr()) for name, item in tensors]
        return self._fresh, state

    def _follows(self, program: _Program) -> bool:
        """Give a program the weights that the model has now; forget it if it cannot take them."""
        versions = self._versions()
        if program.versions == versions:
            return True
        try:
            program.module.update_weights(self.__dict__["_model"].state_dict())
        except PortrtError as err:
            logger.info("compiled again: %s", err.happened)
            self._programs.remove(program)
            self._known = {key: held for key, held in self._known.items() if held is not program}
            return False
        program.versions = versions
        return True

    def _run_first(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], key: Any
    ) -> tuple[_Program, Any]:
        """Return the program that takes such arguments, compiled if none does, and its output."""
        for program in list(self._programs):
            if not self._follows(program):
                continue
            with contextlib.suppress(InputError):  # of other arguments
                return program, program.module(*args, **kwargs)
        *family, shapes = key
        seen = self._seen.setdefault(tuple(family), [])
        varying = [
            {axis for axis, size in enumerate(shape) if any(old[i][axis] != size for old in seen)}
            for i, shape in enumerate(shapes)
        ]
        seen.append(shapes)
        if any(varying):
            try:
                return self._added(self._dynamic(args, kwargs, varying), args, kwargs)
            except PortrtError as err:
                logger.info("compiled for these sizes alone: %s", err.happened)
        return self._added(self._made(args, kwargs, None), args, kwargs)

    def _added(
        self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[_Program, Any]:
        program = _Program(module, self._versions())
        output = program.module(*args, **kwargs)
        self._programs.append(program)
        return program, output

    def _dynamic(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], varying: list[set[int]]
    ) -> torch.nn.Module:
        """Compile with the sizes that varied as dynamic ones."""
        given = inspect.signature(self.__dict__["_model"].forward).bind(*args, **kwargs).arguments
        axes = iter(varying)

        def dims(leaf: Any) -> Any:
            return dict.fromkeys(next(axes), Dim.AUTO) if isinstance(leaf, torch.Tensor) else None

        return self._made(args, kwargs, pytree.tree_map(dims, dict(given)))

    def _made(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], dynamic_shapes: Any
    ) -> torch.nn.Module:
        made: torch.nn.Module = compile_model(
            self.__dict__["_model"],
            inputs=list(args),
            kwarg_inputs=kwargs or None,
            dynamic_shapes=dynamic_shapes,
            **self._options,
        )
        return made

    def save(self, folder: str | Path) -> None:
        """Write the programs that were compiled to a folder, one file each, without any code.

        Raises:
            SaveError: A file cannot be written.
        """
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        with self._lock:
            for old in place.glob("program_*.pt2"):
                old.unlink()
            for index, program in enumerate(self._programs):
                save(program.module, place / f"program_{index}.pt2", progress=False)

    @classmethod
    def load(cls, folder: str | Path, model: torch.nn.Module, **options: Any) -> MutableModule:
        """Read the programs of a folder for a model; weights are taken from the model.

        Args:
            folder: Folder that `save` wrote.
            model: The model, or another one with the same names, shapes and dtypes.
            **options: Options of `portrt.compile`, for what is compiled later.

        Raises:
            LoadError: The folder has no program, or one of them is damaged.
        """
        paths = sorted(Path(folder).glob("program_*.pt2"))
        if not paths:
            raise LoadError(
                f"{str(folder)!r} has no programs",
                "a folder that MutableModule.save wrote, after a call",
                "call the module before it is saved",
            )
        made = cls(model, **options)
        for path in paths:
            made._programs.append(_Program(load(path, output_format="module"), None))
        return made


def _kind(leaf: Any) -> Any:
    """Return what of an argument a program is compiled for, beside its sizes."""
    if isinstance(leaf, torch.Tensor):
        return leaf.dtype, leaf.device, leaf.dim()
    return type(leaf), leaf if isinstance(leaf, (int, float, str, type(None))) else id(leaf)
