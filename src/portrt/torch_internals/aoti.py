"""The loader of AOTInductor packages.

torch's public one, `aoti_load_package`, reads a package from a file that must stay, flattens
inputs at each call, and cannot give constants to the package without copying them.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

_MODEL = "model"


class LoadedPackage:
    """An opened package. The files that it was opened from are private, and removed.

    Args:
        data: The package, 1-D uint8 on the CPU.
        device: Device that it was compiled for.

    Raises:
        RuntimeError: It is no package, or torch cannot load it.
    """

    def __init__(self, data: torch.Tensor, device: torch.device) -> None:
        folder = Path(tempfile.mkdtemp(prefix="portrt-inductor-"))
        remove = weakref.finalize(self, _remove, folder, os.getpid())
        try:
            self._loader = _loader(data, folder, device)
        except BaseException:
            remove()
            raise
        if device.type == "cpu":  # all of it is mapped; GPU kernels are read when first used
            remove()
        self.run = self._loader.run

    @property
    def constants(self) -> list[str]:
        """Return the names of its constants."""
        return sorted(self._loader.get_constant_fqns())

    def set_constants(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Use the memory of these tensors for the constants; it is kept until the package is freed.

        The loader never frees the tensors that it is given: these are empty when the package is.
        """
        given = {name: tensor.detach() for name, tensor in tensors.items()}
        empty = [tensor.new_empty(0) for tensor in given.values()]
        pairs = list(zip(given.values(), empty, strict=True))
        weakref.finalize(self, _let_go, pairs).atexit = False
        self._loader.load_constants(given, False, True, user_managed=True)


def _let_go(pairs: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> None:
    for tensor, empty in pairs:
        tensor.data = empty  # calls no operator: a mode may be active when an object is freed


def _loader(data: torch.Tensor, folder: Path, device: torch.device) -> Any:
    path = folder / "engine.pt2"
    data.numpy().tofile(path)
    index = -1 if device.index is None else device.index
    try:
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder)  # refuses paths outside
    except (zipfile.BadZipFile, OSError, ValueError) as err:
        raise RuntimeError(f"it is no package: {err}") from err
    inner = next((item for item in folder.iterdir() if (item / "data").is_dir()), folder)
    # One runner, not guarded by torch: its binding holds the GIL during a call, and its guarded
    # form can be captured by no CUDA graph.
    loader: Any = torch._C._aoti.AOTIModelPackageLoader
    try:
        return loader(str(inner), _MODEL, True, 1, index)
    except RuntimeError as err:
        if "zip" not in str(err):
            raise
    return loader(str(path), _MODEL, True, 1, index)  # a torch that reads no folder


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # not in a forked child
        shutil.rmtree(folder, ignore_errors=True)
