"""Models that are timed beside other compilers, with random weights and inputs of fixed sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

# Called with whether sizes shall be small, to try the code; a model and its inputs.
Make = Callable[[bool], tuple[nn.Module, tuple[torch.Tensor, ...]]]


class Hidden(nn.Module):
    """A model of transformers or diffusers with one output tensor."""

    def __init__(self, model: nn.Module, output: str) -> None:
        super().__init__()
        self.model, self.output = model, output

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.model(*inputs, return_dict=True)[self.output]
        return found


def bert(layers: int, width: int, batch: int, length: int) -> Make:
    def make(tiny: bool) -> Any:
        from transformers import BertConfig, BertModel

        config = BertConfig(
            hidden_size=32 if tiny else width,
            num_hidden_layers=1 if tiny else layers,
            num_attention_heads=2 if tiny else width // (32 if width == 384 else 64),
            intermediate_size=64 if tiny else 4 * width,
        )
        tokens = torch.randint(0, config.vocab_size, (batch, length))
        mask = torch.ones(batch, length, dtype=torch.int64)
        mask[::2, length // 2 :] = 0
        return Hidden(BertModel(config), "last_hidden_state"), (tokens, mask)

    return make


def resnet(depths: tuple[int, ...], basic: bool, batch: int) -> Make:
    def make(tiny: bool) -> Any:
        from transformers import ResNetConfig, ResNetForImageClassification

        options: dict[str, Any] = {"depths": [1, 1, 1, 1] if tiny else list(depths)}
        if basic:
            options |= {"layer_type": "basic", "hidden_sizes": [64, 128, 256, 512]}
        size = 64 if tiny else 224
        images = torch.randn(2 if tiny and batch > 1 else batch, 3, size, size)
        return Hidden(ResNetForImageClassification(ResNetConfig(**options)), "logits"), (images,)

    return make


def vit(layers: int, width: int, batch: int) -> Make:
    def make(tiny: bool) -> Any:
        from transformers import ViTConfig, ViTForImageClassification

        config = ViTConfig(
            num_hidden_layers=1 if tiny else layers,
            hidden_size=width,
            num_attention_heads=width // 64,
            intermediate_size=4 * width,
        )
        images = torch.randn(batch, 3, 224, 224)
        return Hidden(ViTForImageClassification(config), "logits"), (images,)

    return make


def llama(layers: int, width: int, inner: int, heads: tuple[int, int], length: int) -> Make:
    """A decoder's prefill of one sequence."""

    def make(tiny: bool) -> Any:
        from transformers import LlamaConfig, LlamaForCausalLM

        config = LlamaConfig(
            hidden_size=64 if tiny else width,
            intermediate_size=128 if tiny else inner,
            num_hidden_layers=1 if tiny else layers,
            num_attention_heads=2 if tiny else heads[0],
            num_key_value_heads=2 if tiny else heads[1],
            vocab_size=1000 if tiny else 32000,
            use_cache=False,
        )
        tokens = torch.randint(0, config.vocab_size, (1, 8 if tiny else length))
        return Hidden(LlamaForCausalLM(config), "logits"), (tokens,)

    return make


def whisper_encoder(tiny: bool) -> Any:
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    config = WhisperConfig(
        d_model=64 if tiny else 384,
        encoder_layers=1 if tiny else 4,
        encoder_attention_heads=2 if tiny else 6,
        encoder_ffn_dim=128 if tiny else 1536,
        max_source_positions=100 if tiny else 1500,
    )
    sound = torch.randn(1, 80, 200 if tiny else 3000)
    return Hidden(WhisperEncoder(config), "last_hidden_state"), (sound,)


class Recurrent(nn.Module):
    """Two LSTM layers and a classifier of the last step."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(64, 128, num_layers=2, batch_first=True)
        self.head = nn.Linear(128, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(self.lstm(x)[0][:, -1])
        return found


def lstm(tiny: bool) -> Any:
    return Recurrent(), (torch.randn(4, 8 if tiny else 64, 64),)


def mlp(tiny: bool) -> Any:
    width = 32 if tiny else 256
    layers = [nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 10)), (torch.randn(8, 64),)


def mobilenet(tiny: bool) -> Any:
    from transformers import MobileNetV2Config, MobileNetV2ForImageClassification

    size = 64 if tiny else 224
    model = MobileNetV2ForImageClassification(MobileNetV2Config())
    return Hidden(model, "logits"), (torch.randn(1, 3, size, size),)


def convnext(tiny: bool) -> Any:
    from transformers import ConvNextConfig, ConvNextForImageClassification

    config = ConvNextConfig(depths=[1, 1, 1, 1] if tiny else [3, 3, 9, 3])
    size = 64 if tiny else 224
    return Hidden(ConvNextForImageClassification(config), "logits"), (
        torch.randn(1, 3, size, size),
    )


def swin(tiny: bool) -> Any:
    from transformers import SwinConfig, SwinForImageClassification

    config = SwinConfig(depths=[1, 1, 1, 1] if tiny else [2, 2, 6, 2])
    return Hidden(SwinForImageClassification(config), "logits"), (torch.randn(1, 3, 224, 224),)


def gpt2(tiny: bool) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        n_layer=1 if tiny else 12, n_embd=64 if tiny else 768, n_head=2 if tiny else 12
    )
    config.use_cache = False
    tokens = torch.randint(0, config.vocab_size, (1, 8 if tiny else 32))
    return Hidden(GPT2LMHeadModel(config), "logits"), (tokens,)


def t5_encoder(tiny: bool) -> Any:
    from transformers import T5Config, T5EncoderModel

    model = T5EncoderModel(T5Config(num_layers=1 if tiny else 6))
    return Hidden(model, "last_hidden_state"), (torch.randint(0, 32000, (1, 8 if tiny else 64)),)


def unet(tiny: bool) -> Any:
    from diffusers import UNet2DModel

    channels = (32, 64) if tiny else (32, 64, 128)
    model = UNet2DModel(
        sample_size=32,
        block_out_channels=channels,
        down_block_types=("DownBlock2D",) * (len(channels) - 1) + ("AttnDownBlock2D",),
        up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * (len(channels) - 1),
        layers_per_block=1,
        norm_num_groups=16,
    )
    return Hidden(model, "sample"), (torch.randn(1, 3, 32, 32), torch.tensor([7]))


class Ranking(nn.Module):
    """Embeddings of categories and numbers through a deep network, as ranking models have it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.tables = nn.ModuleList([nn.Embedding(10_000, 32) for _ in range(16)])
        self.dense = nn.Linear(16, 32)
        self.deep = nn.Sequential(
            nn.Linear(17 * 32, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, 1),
        )

    def forward(self, numbers: torch.Tensor, categories: torch.Tensor) -> torch.Tensor:
        columns = [table(categories[:, index]) for index, table in enumerate(self.tables)]
        found: torch.Tensor = self.deep(torch.cat([self.dense(numbers), *columns], 1)).sigmoid()
        return found


def ranking(tiny: bool) -> Any:
    categories = torch.randint(0, 10_000, (128, 16))
    return Ranking(32 if tiny else 512), (torch.randn(128, 16), categories)


class DecoderLayer(nn.Module):
    """A layer of a Llama for one token, with its keys and values in buffers."""

    def __init__(self, width: int, inner: int, heads: int, groups: int, length: int) -> None:
        super().__init__()
        self.heads, self.groups, self.size = heads, groups, width // heads
        self.before, self.after = nn.RMSNorm(width), nn.RMSNorm(width)
        self.mix = nn.Linear(width, (heads + 2 * groups) * self.size, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.gate = nn.Linear(width, 2 * inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)
        self.register_buffer("keys", torch.zeros(1, groups, length, self.size))
        self.register_buffer("values", torch.zeros(1, groups, length, self.size))

    def forward(
        self, x: torch.Tensor, at: torch.Tensor, mask: torch.Tensor, turn: torch.Tensor
    ) -> torch.Tensor:
        mixed = self.mix(self.before(x)).view(1, 1, -1, self.size).transpose(1, 2)
        q, k, v = mixed.split([self.heads, self.groups, self.groups], 1)
        self.keys.index_copy_(2, at, turned(k, turn))
        self.values.index_copy_(2, at, v)
        found = nn.functional.scaled_dot_product_attention(
            turned(q, turn), self.keys, self.values, attn_mask=mask, enable_gqa=True
        )
        x = x + self.out(found.transpose(1, 2).reshape(x.shape))
        gate, up = self.gate(self.after(x)).chunk(2, -1)
        last: torch.Tensor = x + self.down(nn.functional.silu(gate) * up)
        return last


def turned(x: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
    """Rotary embedding, with cosines and sines of the position."""
    first, second = x.chunk(2, -1)
    return x * turn[0] + torch.cat([-second, first], -1) * turn[1]


class DecoderStep(nn.Module):
    """A Llama's step for one token at a position, with a static key-value cache."""

    def __init__(self, layers: int, width: int, inner: int, heads: tuple[int, int], length: int):
        super().__init__()
        self.embed = nn.Embedding(32000, width)
        self.layers = nn.ModuleList(
            DecoderLayer(width, inner, *heads, length) for _ in range(layers)
        )
        self.norm, self.head = nn.RMSNorm(width), nn.Linear(width, 32000, bias=False)
        size = width // heads[0]
        rates = 1e4 ** (-torch.arange(0, size, 2) / size)
        angles = torch.outer(torch.arange(length), torch.cat([rates, rates]))
        self.register_buffer("turns", torch.stack([angles.cos(), angles.sin()]))
        self.register_buffer("places", torch.arange(length))

    def forward(self, token: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        x, mask = self.embed(token), (self.places <= at)[None, None, None]
        turn = self.turns[:, at]
        for layer in self.layers:
            x = layer(x, at, mask, turn)
        found: torch.Tensor = self.head(self.norm(x))
        return found


def decoder_step(tiny: bool) -> Any:
    sizes = (1, 64, 128, (2, 1), 16) if tiny else (16, 2048, 8192, (32, 8), 1024)
    return DecoderStep(*sizes), (torch.tensor([[7]]), torch.tensor([5]))


def diffusion_unet(tiny: bool) -> Any:
    """The UNet of Stable Diffusion 1.5, for one image with and without the text."""
    from diffusers import UNet2DConditionModel

    small = {"block_out_channels": (32, 64), "norm_num_groups": 16, "layers_per_block": 1}
    small |= {
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }
    size = 16 if tiny else 64
    model = UNet2DConditionModel(
        cross_attention_dim=768, sample_size=size, **(small if tiny else {})
    )
    noise, text = torch.randn(2, 4, size, size), torch.randn(2, 77, 768)
    return Hidden(model, "sample"), (noise, torch.tensor([7]), text)


GPU_MODELS: dict[str, Make] = {
    "MiniLM b32 s128": bert(6, 384, 32, 128),
    "MiniLM b1 s32": bert(6, 384, 1, 32),
    "BERT-base b8 s128": bert(12, 768, 8, 128),
    "ResNet-50 b32": resnet((3, 4, 6, 3), False, 32),
    "ViT-B/16 b8": vit(12, 768, 8),
    "Llama 1 B, prefill b1 s512": llama(16, 2048, 8192, (32, 8), 512),
    "Llama 1 B, decode step": decoder_step,
    "UNet of SD 1.5": diffusion_unet,
}

CPU_MODELS: dict[str, Make] = {
    "MiniLM b1 s32": bert(6, 384, 1, 32),
    "MiniLM b8 s64": bert(6, 384, 8, 64),
    "ResNet-18": resnet((2, 2, 2, 2), True, 1),
    "ViT-S/16": vit(12, 384, 1),
    "Llama 60 M, prefill s32": llama(8, 512, 1376, (8, 8), 32),
    "Whisper tiny encoder": whisper_encoder,
    "LSTM": lstm,
    "MLP": mlp,
    "MobileNetV2": mobilenet,
    "ConvNeXt-T": convnext,
    "Swin-T": swin,
    "GPT-2, prefill s32": gpt2,
    "T5 small encoder": t5_encoder,
    "UNet 32 x 32": unet,
    "ranking b128": ranking,
    "BERT-base b1 s64": bert(12, 768, 1, 64),
}
