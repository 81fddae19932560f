"""`save` and `load`, with Torch-TensorRT's arguments."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from portrt.arguments import one_of
from portrt.compiler.capture import capture
from portrt.compiler.package.save import program_of
from portrt.compiler.package.save import save as save_program
from portrt.errors import SettingsError
from portrt.format.atomic import replacing
from portrt.format.file_objects import not_written, to_read, to_write
from portrt.runtime.load import load as load_program
from portrt.runtime.module import PROGRAM
from portrt.torch_internals.inductor import compile_to_package, load_package
from portrt.torch_tensorrt.inputs import in_a_list
from portrt.torch_tensorrt.options import warn

FORMATS = ("exported_program", "torchscript", "aot_inductor", "executorch")
_EXTRA = "extra/"


def save(
    module: Any,
    file_path: Any = "",
    *,
    extra_files: Mapping[str, str] | None = None,
    output_format: str = "exported_program",
    inputs: Any = None,
    arg_inputs: Any = None,
    kwarg_inputs: Mapping[str, Any] | None = None,
    retrace: bool = True,  # noqa: ARG001  (as there)
    use_legacy_exporter: bool | None = None,  # noqa: ARG001
    pickle_protocol: int = 2,  # noqa: ARG001
    dynamic_shapes: Any = None,
    **kwargs: Any,
) -> None:
    """Write a compiled program to a file or a file object.

    Args:
        module: What `compile` returned, an ExportedProgram, a ScriptModule, or with example inputs
            a model that is not compiled.
        file_path: A path, or a file object such as `io.BytesIO`.
        extra_files: Name -> text, stored beside the program.
        output_format: "exported_program"; "torchscript"; or "aot_inductor", which compiles what is
            between the engines by AOTInductor.
        inputs, arg_inputs, kwarg_inputs: Example inputs; needed for a model alone, because a
            compiled program has its own.
        retrace, use_legacy_exporter: No effect: a compiled program is not captured again.
        pickle_protocol: No effect: nothing is pickled.
        dynamic_shapes: For a model, as `torch.export.export` takes it. A compiled program keeps
            its ranges, with a warning where it has none.
        **kwargs: `inductor_configs`, with "aot_inductor".

    Raises:
        SettingsError: The format is unknown or cannot be had, or the module is none of these.
        SaveError: The file cannot be written.
    """
    one_of("output_format", output_format, FORMATS)
    _check_options(kwargs)
    if output_format == "executorch":
        raise _no_executorch()
    args = in_a_list(inputs if arg_inputs is None else arg_inputs)
    with _written(file_path, staged=bool(extra_files)) as path:
        if isinstance(module, torch.jit.ScriptModule):
            torch.jit.save(module, str(path), _extra_files=_texts(extra_files))
            return
        program = _program(module, args, kwarg_inputs, dynamic_shapes)
        if output_format == "aot_inductor":
            compile_to_package(program, path, kwargs.get("inductor_configs"))
            return
        save_program(program, path, output_format=output_format)
        if extra_files and output_format == "torchscript":
            script = torch.jit.load(str(path))  # type: ignore[no-untyped-call]
            torch.jit.save(script, str(path), _extra_files=_texts(extra_files))
        elif extra_files:
            _add_extra(path, extra_files)


def load(
    file_path: Any = "",
    extra_files: dict[str, Any] | None = None,
    *,
    format: str | None = None,  # noqa: A002  (Torch-TensorRT's name)
    **kwargs: Any,
) -> Any:
    """Read what `save` wrote.

    Args:
        file_path: A path, or a file object such as `io.BytesIO`.
        extra_files: Its values are replaced by the texts that are stored under its keys.
        format: One of those of `save`; found from the file when None.
        **kwargs: As `portrt.load` takes them, for exported programs.

    Returns:
        An ExportedProgram, a ScriptModule, or for "aot_inductor" a callable.

    Raises:
        SettingsError: The format is unknown or cannot be had.
        LoadError, PackageError: As `portrt.load`.
    """
    if format is not None:
        one_of("format", format, FORMATS)
    if format == "executorch":
        raise _no_executorch()
    with _read(file_path) as path:
        kind = format or _format_of(path)
        if kind == "torchscript":
            texts = dict.fromkeys(extra_files or (), "")
            script = torch.jit.load(  # type: ignore[no-untyped-call]
                str(path), _extra_files=texts
            )
            _fill(extra_files, texts)
            return script
        if kind == "aot_inductor":
            return load_package(path)
        program = load_program(path, **kwargs)
        if extra_files:
            _fill(extra_files, _extra_of(path))
        return program


def load_cross_compiled_exported_program(file_path: str = "") -> ExportedProgram:
    """Read a program that `cross_compile_for_windows` wrote: as `load`."""
    return load_program(file_path)


def _program(module: Any, args: Any, kwargs: Any, dynamic_shapes: Any) -> ExportedProgram:
    """Return the program of a compiled module, or that of a model on its inputs."""
    is_model = isinstance(module, torch.nn.Module) and PROGRAM not in getattr(module, "meta", {})
    if is_model and (args is not None or kwargs is not None):
        return capture(module, args, kwargs, dynamic_shapes=dynamic_shapes)
    if is_model:
        raise SettingsError(
            f"a {type(module).__qualname__} that is not compiled was given to save",
            "what compile returned, or example inputs of the model",
            "compile it, or give inputs=[...]",
        )
    program = program_of(module)
    if dynamic_shapes and pytree.tree_leaves(dynamic_shapes) and not program.range_constraints:
        warn(
            "save(dynamic_shapes=...): the program was compiled for one size, and the file has "
            "that; give compile a range, by Inputs or dynamic_shapes"
        )
    return program


@contextmanager
def _written(target: Any, *, staged: bool) -> Iterator[Path]:
    """Give a path to write to: the target, or a file that is copied there if it is complete."""
    if not _is_path("file_path", target, "write"):
        with to_write(target) as path:
            yield path
    elif not staged:
        yield Path(target)
    else:
        try:
            with replacing(Path(target)) as file, to_write(file) as path:
                yield path
        except OSError as err:
            raise not_written(target, err) from err


@contextmanager
def _read(source: Any) -> Iterator[Path]:
    """Give a path to read from: the source, or a file with the content of a file object."""
    if _is_path("file_path", source, "read"):
        yield Path(source)
        return
    with to_read(source) as path:
        yield path


def _is_path(name: str, value: Any, method: str) -> bool:
    """Return whether a target is a path and not a file object.

    Raises:
        SettingsError: It is neither.
    """
    if isinstance(value, (str, os.PathLike)) and os.fspath(value):
        return True
    if isinstance(value, (str, os.PathLike)) or not hasattr(value, method):
        raise SettingsError(
            f"{name} is {value!r}", f"a path, or a file object with {method}()", "give one of them"
        )
    return False


def _check_options(given: Mapping[str, Any]) -> None:
    unknown = [name for name in given if name != "inductor_configs"]
    if unknown:
        raise SettingsError(
            f"save() has no argument {unknown[0]!r}",
            "those of its signature, and inductor_configs",
            "leave it out",
        )


def _format_of(path: Path) -> str:
    """Return the format by the names of the file's records."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return "exported_program"  # whose reader has the errors
    if any("/data/aotinductor/" in f"/{name}" for name in names):
        models = [name for name in names if "/models/" in f"/{name}" and name.endswith(".json")]
        return "exported_program" if models else "aot_inductor"
    return "torchscript" if any("/code/" in name for name in names) else "exported_program"


def _texts(extra_files: Mapping[str, str] | None) -> dict[str, Any]:
    return dict(extra_files or {})


def _add_extra(path: Path, extra_files: Mapping[str, str]) -> None:
    with zipfile.ZipFile(path, "a") as archive:
        root = archive.namelist()[0].partition("/")[0]
        for name, text in extra_files.items():
            archive.writestr(f"{root}/{_EXTRA}{name}", text)


def _extra_of(path: Path) -> dict[str, str]:
    with zipfile.ZipFile(path) as archive:
        records = {name.partition("/")[2]: name for name in archive.namelist()}
        return {
            name.removeprefix(_EXTRA): archive.read(full).decode()
            for name, full in records.items()
            if name.startswith(_EXTRA)
        }


def _fill(extra_files: dict[str, Any] | None, found: Mapping[str, Any]) -> None:
    for name in extra_files or ():
        if name in found and extra_files is not None:
            extra_files[name] = found[name]


def _no_executorch() -> SettingsError:
    return SettingsError(
        "the format is 'executorch'",
        f"one of {', '.join(map(repr, FORMATS[:3]))}: no engine here is an ExecuTorch delegate",
        "portrt.files.extract(path, 'onnx', ...) gives the model for other runtimes",
    )
