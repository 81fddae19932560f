"""`portrt compile hf:NAME`: models of transformers, with the dynamic sizes of their task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from portrt.arguments import one_of
from portrt.compiler.inputs import Input
from portrt.errors import SettingsError, first_line


@dataclass(frozen=True)
class Task:
    """How transformers loads a model for a task.

    Attributes:
        loader: Class of transformers.
        outputs: Names of what is returned.
        suffixes: Ends of the names of such models' classes.
    """

    loader: str
    outputs: tuple[str, ...]
    suffixes: tuple[str, ...] = ()


_LOGITS = ("logits",)
TASKS: Mapping[str, Task] = {
    "feature-extraction": Task("AutoModel", ("last_hidden_state",)),
    "fill-mask": Task("AutoModelForMaskedLM", _LOGITS, ("ForMaskedLM",)),
    "image-classification": Task(
        "AutoModelForImageClassification", _LOGITS, ("ForImageClassification",)
    ),
    "question-answering": Task(
        "AutoModelForQuestionAnswering", ("start_logits", "end_logits"), ("ForQuestionAnswering",)
    ),
    "text-classification": Task(
        "AutoModelForSequenceClassification", _LOGITS, ("ForSequenceClassification",)
    ),
    "text-generation": Task("AutoModelForCausalLM", _LOGITS, ("ForCausalLM", "LMHeadModel")),
    "token-classification": Task(
        "AutoModelForTokenClassification", _LOGITS, ("ForTokenClassification",)
    ),
}
# Sizes of a range: smallest, the one to tune for, largest.
_BATCH = (1, 8, 64)
_LENGTH, _TUNED_LENGTH = 512, 128
# Positions that are never those of a token: numbering begins after the padding's.
_PADDED_POSITIONS = ("roberta", "camembert", "xmod", "data2vec-text", "longformer")


class _Positional(torch.nn.Module):
    """A model of transformers whose results are tensors."""

    def __init__(self, model: torch.nn.Module, outputs: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.outputs = model, outputs

    def results(self, **inputs: torch.Tensor) -> Any:
        made = self.model(**inputs, return_dict=True)
        found = {name: made[name] for name in self.outputs}
        return found if len(found) > 1 else found[self.outputs[0]]


class _Text(_Positional):
    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        return self.results(input_ids=input_ids, attention_mask=attention_mask)


class _Images(_Positional):
    def forward(self, pixel_values: torch.Tensor) -> Any:
        return self.results(pixel_values=pixel_values)


def model_and_inputs(name: str, task: str | None) -> tuple[torch.nn.Module, tuple[Input, ...]]:
    """Return a model of a folder, or of the hub, and its inputs.

    Args:
        name: The folder that `save_pretrained` wrote, or a name on the hub.
        task: One of TASKS; that of the class in the model's configuration when None.

    Returns:
        A module of (input_ids, attention_mask), int64 (batch, length), or of pixel_values,
        float (batch, channels, height, width); it returns the task's output, or a dictionary of
        several.

    Raises:
        SettingsError: transformers is not installed or cannot load it, or it takes other inputs.
    """
    try:
        import transformers
    except ImportError as err:
        raise SettingsError(
            f"hf:{name} needs transformers, which is not installed",
            "the package transformers",
            "pip install 'portrt[demo]'",
        ) from err
    if not name or (name.startswith(("/", ".", "~")) and not Path(name).is_dir()):
        raise SettingsError(
            f"there is no folder {name!r}",
            "hf: and a folder that save_pretrained wrote, or the name of a model on the hub",
            "correct the name",
        )
    if task is not None:
        one_of("--task", task, tuple(TASKS))
    try:
        config = transformers.AutoConfig.from_pretrained(name)
        chosen = TASKS[task or _task_of(config)]
        loader = getattr(transformers, chosen.loader)
        model, found = loader.from_pretrained(name, config=config, output_loading_info=True)
    except Exception as err:
        raise SettingsError(
            f"{name!r} cannot be loaded by transformers: {first_line(err)}",
            "a folder that save_pretrained wrote, or the name of a model on the hub",
            "correct the name or --task, or load the model in a function and give "
            "PACKAGE.MODULE:FACTORY",
        ) from err
    missing = sorted(key for key in found["missing_keys"] if ".pooler." not in f".{key}")
    if missing:
        raise SettingsError(
            f"{name!r} has no weights for {chosen.loader}: {', '.join(missing)[:200]}",
            "a model that was trained for the task",
            "give another --task",
        )
    if hasattr(model.config, "use_cache"):
        model.config.use_cache = False
    main = model.main_input_name
    if main == "input_ids" and not getattr(config, "is_encoder_decoder", False):
        return _Text(model, chosen.outputs).eval(), _tokens(config)
    if main == "pixel_values":
        return _Images(model, chosen.outputs).eval(), (_pixels(config),)
    raise SettingsError(
        f"{type(model).__name__} takes {main}"
        + (" and the decoder's tokens" if main == "input_ids" else ""),
        "a model of input_ids or pixel_values alone",
        "load it in a function that returns (module, args), and give PACKAGE.MODULE:FACTORY",
    )


def _task_of(config: Any) -> str:
    names = list(getattr(config, "architectures", None) or [])
    ends = ((task, details.suffixes) for task, details in TASKS.items())
    found = (task for task, suffixes in ends if any(name.endswith(suffixes) for name in names))
    return next(found, "feature-extraction")


def _tokens(config: Any) -> tuple[Input, Input]:
    positions = getattr(config, "max_position_embeddings", None) or _LENGTH
    if any(kind in str(config.model_type) for kind in _PADDED_POSITIONS):
        positions -= (config.pad_token_id or 0) + 1
    longest = min(positions, _LENGTH)
    low, opt, high = zip(_BATCH, (1, min(_TUNED_LENGTH, longest), longest), strict=True)
    common: dict[str, Any] = {"min_shape": low, "opt_shape": opt, "max_shape": high}
    common |= {"dtype": torch.int64, "shared_dims": {0: "batch", 1: "length"}}
    domain = (0, min(config.vocab_size, 2))
    return (
        Input(name="input_ids", tensor_domain=domain, **common),
        Input(name="attention_mask", tensor_domain=(1, 2), **common),
    )


def _pixels(config: Any) -> Input:
    size = getattr(config, "image_size", None) or 224
    height, width = (size, size) if isinstance(size, int) else tuple(size)
    shape = (getattr(config, "num_channels", 3), height, width)
    low, opt, high = ((batch, *shape) for batch in _BATCH)
    return Input(name="pixel_values", min_shape=low, opt_shape=opt, max_shape=high)
