"""`portrt compile hf:FOLDER`: a model that transformers saved, with the sizes of its task."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from click.testing import CliRunner

import portrt
from portrt.cli import cli
from portrt.errors import SettingsError

SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 50,
}
CASES: dict[str, tuple[Callable[[], Any], tuple[str, ...], str]] = {
    "a classifier": (
        lambda: hf.BertForSequenceClassification(hf.BertConfig(**SMALL, num_labels=3)),
        (),
        "logits",
    ),
    "an encoder of a classifier": (
        lambda: hf.BertForSequenceClassification(hf.BertConfig(**SMALL)),
        ("--task", "feature-extraction"),
        "last_hidden_state",
    ),
    "a decoder": (
        lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**SMALL, max_position_embeddings=64)),
        (),
        "logits",
    ),
    "positions after those of padding": (
        lambda: hf.RobertaForMaskedLM(hf.RobertaConfig(**SMALL, max_position_embeddings=34)),
        (),
        "logits",
    ),
}


def _compiled(model: Any, folder: Path, *more: str) -> Any:
    model.eval().save_pretrained(folder / "model")
    target = folder / "model.pt2"
    given = ["compile", f"hf:{folder / 'model'}", "-o", str(target), "--engine", "onnxruntime"]
    done = CliRunner().invoke(cli, [*given, *more], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return portrt.load(target, output_format="module", fallback="error")


@pytest.mark.parametrize("name", CASES)
def test_texts(name: str, tmp_path: Path) -> None:
    make, more, output = CASES[name]
    torch.manual_seed(0)
    model = make()
    module = _compiled(model, tmp_path, *more)
    inner = model.base_model if "--task" in more else model
    longest = 32 if "padding" in name else 40
    for batch, length in ((1, 1), (3, 7), (2, longest)):
        tokens = torch.randint(3, 50, (batch, length))
        mask = torch.ones_like(tokens)
        mask[0, length // 2 + 1 :] = 0
        wanted = inner(input_ids=tokens, attention_mask=mask)[output]
        seen = mask.bool() if wanted.dim() == 3 else slice(None)
        found = module(input_ids=tokens, attention_mask=mask)
        torch.testing.assert_close(found[seen], wanted[seen], rtol=1e-4, atol=1e-5)


def test_several_outputs(tmp_path: Path) -> None:
    model = hf.BertForQuestionAnswering(hf.BertConfig(**SMALL))
    module = _compiled(model, tmp_path)
    tokens = torch.randint(3, 50, (2, 9))
    found = module(tokens, torch.ones_like(tokens))
    wanted = model(tokens)
    assert set(found) == {"start_logits", "end_logits"}
    for key, value in found.items():
        torch.testing.assert_close(value, wanted[key], rtol=1e-4, atol=1e-5)


def test_images(tmp_path: Path) -> None:
    config = hf.ViTConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=32,
        patch_size=16,
    )
    model = hf.ViTForImageClassification(config)
    module = _compiled(model, tmp_path)
    for batch in (1, 3):
        images = torch.randn(batch, 3, 32, 32)
        torch.testing.assert_close(module(images), model(images).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("hf:no/such-model",), "cannot be loaded by transformers"),
        (("hf:no/such-model", "--task", "text-clasification"), "'text-classification'"),
        (("package.module:make", "--task", "fill-mask"), "--task fill-mask was given for"),
    ],
)
def test_bad_input(
    given: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    command = ["compile", *given, "-o", str(tmp_path / "model.pt2")]
    with pytest.raises(SettingsError, match=message):
        CliRunner().invoke(cli, command, catch_exceptions=False)
    assert not list(tmp_path.iterdir())


def test_models_of_other_inputs_are_refused(tmp_path: Path) -> None:
    small = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": 50}
    small |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    hf.BartModel(hf.BartConfig(**small)).save_pretrained(tmp_path / "model")
    command = ["compile", f"hf:{tmp_path / 'model'}", "-o", str(tmp_path / "model.pt2")]
    with pytest.raises(SettingsError, match="BartModel takes input_ids and the decoder's tokens"):
        CliRunner().invoke(cli, command, catch_exceptions=False)
