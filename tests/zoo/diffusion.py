"""Diffusion models of diffusers."""

from __future__ import annotations

from typing import Any

import torch

from zoo.registry import Entry, randn, zoo


@zoo("diffusion")
def unet2d_condition() -> Entry:
    from diffusers import UNet2DConditionModel

    model = UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=24,
        attention_head_dim=8,
    )

    def inputs(batch: int, height: int, width: int, length: int) -> dict[str, Any]:
        return {
            "sample": randn(batch, 4, 2 * height, 2 * width),
            "timestep": torch.randint(0, 1000, (batch,)),
            "encoder_hidden_states": randn(batch, length, 24),
        }

    sides = (4, 8, 12)
    dims = {"batch": (1, 2, 3), "height": sides, "width": sides, "length": (2, 7, 16)}
    axes = {
        "sample": {0: "batch", 2: (2, "height"), 3: (2, "width")},
        "timestep": {0: "batch"},
        "encoder_hidden_states": {0: "batch", 1: "length"},
    }
    return Entry(model, inputs, dims, axes)


class _Decode(torch.nn.Module):
    """The decoding half of an autoencoder."""

    def __init__(self, autoencoder: torch.nn.Module) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.autoencoder.decode(z, return_dict=False)[0]


@zoo("diffusion")
def autoencoder_kl_decoder() -> Entry:
    from diffusers import AutoencoderKL

    model = AutoencoderKL(
        block_out_channels=(16, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        layers_per_block=1,
    )

    def inputs(batch: int, height: int, width: int) -> dict[str, Any]:
        return {"z": randn(batch, 4, height, width)}

    dims = {"batch": (1, 2, 3), "height": (4, 8, 16), "width": (4, 8, 16)}
    return Entry(_Decode(model), inputs, dims, {"z": {0: "batch", 2: "height", 3: "width"}})


@zoo("diffusion")
def dit() -> Entry:
    from diffusers import DiTTransformer2DModel

    model = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        sample_size=8,
        patch_size=2,
        norm_num_groups=4,
        num_embeds_ada_norm=10,
    )

    def inputs(batch: int) -> dict[str, Any]:
        return {
            "hidden_states": randn(batch, 4, 8, 8),
            "timestep": torch.randint(0, 1000, (batch,)),
            "class_labels": torch.randint(0, 10, (batch,)),
        }

    axes = {name: {0: "batch"} for name in ("hidden_states", "timestep", "class_labels")}
    return Entry(model, inputs, {"batch": (1, 2, 4)}, axes)
