"""Reads a program's inputs from .npy, .npz and .safetensors files."""

from __future__ import annotations

from typing import Any

from portrt.errors import InputError
from portrt.format.file_kind import require_file


def read_inputs(paths: tuple[str, ...], names: list[str]) -> list[Any]:
    """Read the flat inputs, in the order of the signature.

    Args:
        paths: One .npy file for each input, or one .npz or .safetensors file.
        names: Names of the program's inputs.

    Raises:
        InputError: The files do not have the inputs of the program.
        LoadError: One of them is a pipe, a device or a folder.
    """
    import numpy as np
    import torch

    for path in paths:
        require_file(path)
    if all(path.endswith(".npy") for path in paths):
        found: dict[str, Any] = {}
        if len(paths) != len(names):
            raise InputError(
                f"{len(paths)} .npy files were given",
                f"{len(names)}: {', '.join(names)}",
                "give one file for each argument, in that order",
            )
        for name, path in zip(names, paths, strict=True):
            found[name] = torch.from_numpy(np.load(path, allow_pickle=False))
    elif len(paths) == 1 and paths[0].endswith(".npz"):
        with np.load(paths[0], allow_pickle=False) as arrays:
            found = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    elif len(paths) == 1 and paths[0].endswith(".safetensors"):
        from safetensors.torch import load_file

        found = load_file(paths[0])
    else:
        raise InputError(
            f"the inputs are {', '.join(paths)}",
            ".npy files, or one .npz, or one .safetensors",
            "convert them to one of these formats",
        )
    if set(found) != set(names):
        raise InputError(
            f"{paths[0]} has the tensors {', '.join(sorted(found))}",
            f"the inputs of the program: {', '.join(names)}",
            "name the tensors like the inputs",
        )
    return [found[name] for name in names]
