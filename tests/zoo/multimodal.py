"""Models of several modes, from transformers."""

from __future__ import annotations

from typing import Any

import torch

from zoo.registry import Entry, ids, padded_mask, randn, zoo
from zoo.text import DECODER, TOKENS, VOCABULARY

IMAGE_TOKEN = VOCABULARY - 1
_VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}


@zoo("multimodal")
def clip() -> Entry:
    from transformers import CLIPConfig, CLIPModel

    text = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 32,
        "eos_token_id": 2,
        "bos_token_id": 1,
        "pad_token_id": 0,
    }
    config = CLIPConfig(text_config=text, vision_config=_VISION, projection_dim=16)

    def inputs(texts: int, length: int, images: int) -> dict[str, Any]:
        tokens = ids(VOCABULARY, texts, length)
        tokens[:, -1] = 2
        return {
            "input_ids": tokens,
            "pixel_values": randn(images, 3, 32, 32),
            "attention_mask": padded_mask(texts, length),
        }

    dims = {"texts": (1, 3, 5), "length": (2, 9, 24), "images": (1, 2, 4)}
    both = {0: "texts", 1: "length"}
    axes = {"input_ids": both, "attention_mask": both, "pixel_values": {0: "images"}}
    return Entry(CLIPModel(config), inputs, dims, axes)


def _prompt(batch: int, length: int, image_tokens: int) -> torch.Tensor:
    """Tokens of which the same number in each row stands for the image."""
    tokens = torch.randint(3, IMAGE_TOKEN, (batch, length + image_tokens))
    tokens[:, 1 : 1 + image_tokens] = IMAGE_TOKEN
    return tokens


def _image_and_text(model: Any, image_tokens: int, side: int, fixed: str = "") -> Entry:
    def inputs(length: int, batch: int = 2) -> dict[str, Any]:
        tokens = _prompt(batch, length, image_tokens)
        return {
            "input_ids": tokens,
            "pixel_values": randn(batch, 3, side, side),
            "attention_mask": torch.ones_like(tokens),
        }

    both: dict[int, Any] = {1: (1, "length", image_tokens)}
    axes: dict[str, Any] = {"input_ids": both, "attention_mask": both}
    dims = dict(TOKENS)
    if fixed:
        del dims["batch"]
    else:
        both[0] = "batch"
        axes["pixel_values"] = {0: "batch"}
    return Entry(model, inputs, dims, axes, fixed=fixed)


@zoo("multimodal")
def got_ocr2() -> Entry:
    from transformers import GotOcr2Config, GotOcr2ForConditionalGeneration

    vision = {
        "hidden_size": 32,
        "output_channels": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 64,
        "patch_size": 4,
        "window_size": 5,
        "global_attn_indexes": [1],
        "mlp_dim": 64,
        "initializer_range": 0.02,
    }
    config = GotOcr2Config(
        vision_config=vision,
        text_config={"model_type": "qwen2", **DECODER},
        image_token_index=IMAGE_TOKEN,
        image_seq_length=16,
        pad_token_id=0,
    )
    return _image_and_text(GotOcr2ForConditionalGeneration(config), 16, 64)


@zoo("multimodal")
def llava() -> Entry:
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    config = LlavaConfig(
        vision_config={"model_type": "clip_vision_model", **_VISION, "projection_dim": 16},
        text_config={"model_type": "llama", **DECODER},
        image_token_index=IMAGE_TOKEN,
        image_seq_length=16,
    )
    fixed = "batch: a Python loop takes the features of each image apart"
    return _image_and_text(LlavaForConditionalGeneration(config), 16, 32, fixed)
