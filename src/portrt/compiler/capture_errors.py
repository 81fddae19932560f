"""The error of a model that torch.export does not capture."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from portrt.errors import CaptureError
from portrt.graphs.torch_error import TorchError

_RESIZE = (torch.ops.aten.resize_.default, torch.ops.aten.resize_, torch.Tensor.resize_)


class _RankChangedError(Exception):
    pass


class _FindResize(TorchFunctionMode):
    """Raises where a tensor is resized to another rank."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Collection[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func not in _RESIZE:
            return func(*args, **(kwargs or {}))
        before = args[0].dim()
        found = func(*args, **(kwargs or {}))
        if found.dim() != before:
            raise _RankChangedError(f"resize_ changes {before} dimensions to {found.dim()}")
        return found


def capture_error(
    model: torch.nn.Module, err: Exception, again: Callable[[], object]
) -> CaptureError:
    """Describe an error of torch.export.

    Args:
        model: What was to be captured.
        err: torch's error.
        again: Exports it again, to find what torch's error does not name.
    """
    failure = TorchError.of(err)
    if isinstance(err, (IndexError, AssertionError)):
        failure = _of_resize(again) or failure
    return CaptureError(
        f"torch.export could not capture {type(model).__qualname__}: {failure}",
        "a model that torch.export.export takes with these inputs",
        "; ".join((*failure.advice, "torch.export.draft_export(model, args) lists every cause")),
    )


def _of_resize(again: Callable[[], object]) -> TorchError | None:
    """Return the error of a tensor that is resized to another rank, with its line, if one is."""
    try:
        with _FindResize():
            again()
    except _RankChangedError as found:
        return TorchError.of(found)
    except Exception:
        return None
    return None
