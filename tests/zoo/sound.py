"""Speech models of transformers."""

from __future__ import annotations

from typing import Any

from zoo.registry import Entry, ids, randn, zoo


def _whisper() -> Any:
    from transformers import WhisperConfig

    return WhisperConfig(
        vocab_size=64,
        num_mel_bins=16,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_source_positions=24,
        max_target_positions=32,
        use_cache=False,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )


@zoo("sound")
def whisper_encoder() -> Entry:
    """Its input always has 30 s of sound: the batch alone is dynamic."""
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    def inputs(batch: int) -> dict[str, Any]:
        return {"input_features": randn(batch, 16, 48)}

    axes = {"input_features": {0: "batch"}}
    return Entry(WhisperEncoder(_whisper()), inputs, {"batch": (1, 2, 4)}, axes)


@zoo("sound")
def whisper_decoder() -> Entry:
    from transformers.models.whisper.modeling_whisper import WhisperDecoder

    def inputs(batch: int, length: int) -> dict[str, Any]:
        return {
            "input_ids": ids(64, batch, length),
            "encoder_hidden_states": randn(batch, 24, 32),
        }

    axes = {"input_ids": {0: "batch", 1: "length"}, "encoder_hidden_states": {0: "batch"}}
    dims = {"batch": (1, 2, 4), "length": (2, 7, 24)}
    return Entry(WhisperDecoder(_whisper()), inputs, dims, axes)


@zoo("sound")
def wav2vec2() -> Entry:
    from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

    config = Wav2Vec2Config(
        vocab_size=32,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        conv_dim=[16, 16, 16],
        conv_stride=[5, 2, 2],
        conv_kernel=[10, 3, 3],
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
    )

    def inputs(batch: int, samples: int) -> dict[str, Any]:
        return {"input_values": randn(batch, samples)}

    dims = {"batch": (1, 2, 4), "samples": (400, 800, 1600)}
    axes = {"input_values": {0: "batch", 1: "samples"}}
    return Entry(Wav2Vec2ForCTC(config), inputs, dims, axes)
