"""Vision models of transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zoo.registry import Entry, randn, zoo


def pixels(unit: int) -> Callable[..., dict[str, Any]]:
    """Images whose height and width are multiples of `unit`."""

    def inputs(batch: int, height: int, width: int) -> dict[str, Any]:
        return {"pixel_values": randn(batch, 3, unit * height, unit * width)}

    return inputs


def image_entry(model: Any, unit: int, sides: tuple[int, int, int], **rest: Any) -> Entry:
    """Batch, height and width are dynamic.

    The smallest sides leave more than one row and column in the last stage: torch.export makes
    other programs where a size is 1.
    """
    axes = {"pixel_values": {0: "batch", 2: (unit, "height"), 3: (unit, "width")}}
    dims = {"batch": (1, 2, 3), "height": sides, "width": rest.pop("widths", sides)}
    return Entry(model, pixels(unit), dims, axes, **rest)


def fixed_image_entry(model: Any, side: int, **rest: Any) -> Entry:
    """Only the batch is dynamic: the model takes one size of image."""

    def inputs(batch: int) -> dict[str, Any]:
        return {"pixel_values": randn(batch, 3, side, side)}

    return Entry(model, inputs, {"batch": (1, 2, 4)}, {"pixel_values": {0: "batch"}}, **rest)


TRANSFORMER: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


@zoo("vision", quick=True)
def vit() -> Entry:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(**TRANSFORMER, image_size=32, patch_size=8, num_labels=5)
    return fixed_image_entry(ViTForImageClassification(config), 32)


@zoo("vision")
def dinov2() -> Entry:
    from transformers import Dinov2Config, Dinov2Model

    config = Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8
    )
    fixed = "32 x 32, the size of its position table: torch.export guards against it"
    return image_entry(Dinov2Model(config), 8, (2, 5, 7), widths=(2, 3, 7), fixed=fixed)


@zoo("vision")
def swin() -> Entry:
    from transformers import SwinConfig, SwinForImageClassification

    config = SwinConfig(
        image_size=32,
        patch_size=2,
        embed_dim=16,
        depths=[2, 2],
        num_heads=[2, 4],
        window_size=4,
        num_labels=5,
    )
    fixed = "height, width: torch.export does not come to an end over the padding of the windows"
    return fixed_image_entry(SwinForImageClassification(config), 32, fixed=fixed)


@zoo("vision")
def convnext() -> Entry:
    from transformers import ConvNextConfig, ConvNextForImageClassification

    config = ConvNextConfig(
        depths=[1, 1, 2, 1], hidden_sizes=[8, 16, 24, 32], num_labels=5, image_size=64
    )
    return image_entry(ConvNextForImageClassification(config), 32, (2, 3, 5))


@zoo("vision")
def resnet() -> Entry:
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16, 24, 32],
        depths=[1, 1, 2, 1],
        layer_type="basic",
        num_labels=5,
    )
    return image_entry(ResNetForImageClassification(config), 8, (5, 6, 9))


@zoo("vision")
def segformer() -> Entry:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    config = SegformerConfig(
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 16, 24, 32],
        num_attention_heads=[1, 2, 2, 4],
        decoder_hidden_size=16,
        num_labels=5,
    )
    return image_entry(SegformerForSemanticSegmentation(config), 32, (2, 3, 5))


@zoo("vision")
def detr() -> Entry:
    from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig

    backbone = ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16, 24, 32],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage4"],
    )
    config = DetrConfig(
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        backbone_config=backbone,
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        num_queries=6,
        num_labels=5,
    )
    return image_entry(DetrForObjectDetection(config), 32, (2, 3, 5))


@zoo("vision")
def sam_image_encoder() -> Entry:
    from transformers import SamVisionConfig, SamVisionModel

    config = SamVisionConfig(
        hidden_size=32,
        output_channels=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=64,
        patch_size=8,
        window_size=3,
        global_attn_indexes=[1],
        mlp_dim=64,
    )
    return fixed_image_entry(SamVisionModel(config), 64)
