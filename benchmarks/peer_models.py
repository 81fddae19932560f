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


GPU_MODELS: dict[str, Make] = {
    "MiniLM b32 s128": bert(6, 384, 32, 128),
    "MiniLM b1 s32": bert(6, 384, 1, 32),
    "BERT-base b8 s128": bert(12, 768, 8, 128),
    "ResNet-50 b32": resnet((3, 4, 6, 3), False, 32),
    "ViT-B/16 b8": vit(12, 768, 8),
    "Llama 1 B, prefill b1 s512": llama(16, 2048, 8192, (32, 8), 512),
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
