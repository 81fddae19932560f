"""Text models of transformers."""

from __future__ import annotations

from typing import Any

from zoo.registry import Entry, ids, padded_mask, zoo

VOCABULARY = 64
TOKENS = {"batch": (1, 2, 4), "length": (2, 9, 24)}
BOTH = {0: "batch", 1: "length"}


def tokens(batch: int, length: int) -> dict[str, Any]:
    """Token ids and a mask with padding on the right."""
    return {
        "input_ids": ids(VOCABULARY, batch, length),
        "attention_mask": padded_mask(batch, length),
    }


def text_entry(model: Any, dims: Any = None) -> Entry:
    axes = {"input_ids": BOTH, "attention_mask": BOTH}
    return Entry(model, tokens, dims or TOKENS, axes)


DECODER: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "use_cache": False,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
ENCODER: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
}
MLA: dict[str, Any] = {
    "num_key_value_heads": 4,
    "moe_intermediate_size": 16,
    "n_routed_experts": 8,
    "n_group": 2,
    "topk_group": 1,
    "num_experts_per_tok": 2,
    "first_k_dense_replace": 1,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
}


@zoo("text", quick=True)
def bert() -> Entry:
    from transformers import BertConfig, BertModel

    return text_entry(BertModel(BertConfig(**ENCODER)))


@zoo("text")
def roberta_classifier() -> Entry:
    from transformers import RobertaConfig, RobertaForSequenceClassification

    return text_entry(RobertaForSequenceClassification(RobertaConfig(**ENCODER, num_labels=3)))


@zoo("text")
def deberta_v2() -> Entry:
    from transformers import DebertaV2Config, DebertaV2Model

    config = DebertaV2Config(
        **ENCODER,
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        position_buckets=8,
        share_att_key=True,
        norm_rel_ebd="layer_norm",
        position_biased_input=False,
        type_vocab_size=0,
    )
    return text_entry(DebertaV2Model(config))


@zoo("text")
def gpt2() -> Entry:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=64, n_embd=32, n_layer=2, n_head=2, use_cache=False
    )
    return text_entry(GPT2LMHeadModel(config))


@zoo("text")
def llama() -> Entry:
    """Llama 13B's proportions at 1/64: 5120 wide, 40 heads, 40 layers, 13824 in the MLP."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {
        "hidden_size": 80,
        "intermediate_size": 216,
        "num_hidden_layers": 5,
        "num_attention_heads": 5,
        "num_key_value_heads": 5,
    }
    return text_entry(LlamaForCausalLM(LlamaConfig(**{**DECODER, **sizes})))


@zoo("text")
def qwen3() -> Entry:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    return text_entry(Qwen3ForCausalLM(Qwen3Config(**DECODER, head_dim=8)))


@zoo("text", quick=True)
def qwen3_moe() -> Entry:
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    config = Qwen3MoeConfig(
        **DECODER, head_dim=8, moe_intermediate_size=16, num_experts=8, num_experts_per_tok=2
    )
    return text_entry(Qwen3MoeForCausalLM(config))


@zoo("text")
def gemma3() -> Entry:
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    config = Gemma3TextConfig(
        **DECODER,
        head_dim=8,
        query_pre_attn_scalar=8,
        sliding_window=8,
        layer_types=["sliding_attention", "full_attention"],
    )
    return text_entry(Gemma3ForCausalLM(config))


@zoo("text")
def deepseek_v3() -> Entry:
    from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

    return text_entry(DeepseekV3ForCausalLM(DeepseekV3Config(**{**DECODER, **MLA})))


@zoo("text")
def deepseek_v32() -> Entry:
    from transformers import DeepseekV32Config, DeepseekV32ForCausalLM

    # Many heads, as the real one has: else scores are exactly 0 in all of them, and which of
    # several zeros top-k takes is not defined.
    config = DeepseekV32Config(
        **{**DECODER, **MLA}, index_head_dim=16, index_n_heads=16, index_topk=4
    )
    dims = {"batch": (1, 2, 4), "length": (5, 9, 24)}  # longer than index_topk, as it is meant
    return text_entry(DeepseekV32ForCausalLM(config), dims=dims)


@zoo("text")
def hunyuan_v1_dense() -> Entry:
    from transformers import HunYuanDenseV1Config, HunYuanDenseV1ForCausalLM

    return text_entry(HunYuanDenseV1ForCausalLM(HunYuanDenseV1Config(**DECODER, head_dim=8)))


@zoo("text")
def hunyuan_v1_moe() -> Entry:
    from transformers import HunYuanMoEV1Config, HunYuanMoEV1ForCausalLM

    config = HunYuanMoEV1Config(**DECODER, head_dim=8, num_experts=4, moe_topk=2)
    return text_entry(HunYuanMoEV1ForCausalLM(config))


@zoo("text")
def mamba() -> Entry:
    from transformers import MambaConfig, MambaForCausalLM

    config = MambaConfig(
        vocab_size=VOCABULARY, hidden_size=32, state_size=4, num_hidden_layers=2, use_cache=False
    )

    def inputs(batch: int) -> dict[str, Any]:
        return {"input_ids": ids(VOCABULARY, batch, 9)}

    return Entry(
        MambaForCausalLM(config),
        inputs,
        {"batch": (1, 2, 4)},
        {"input_ids": {0: "batch"}},
        fixed="length: its scan over the tokens is a Python loop, unrolled by torch.export",
    )


@zoo("text")
def t5() -> Entry:
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        vocab_size=VOCABULARY,
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        use_cache=False,
        decoder_start_token_id=0,
    )

    def inputs(batch: int, length: int, target: int) -> dict[str, Any]:
        decoder = {"decoder_input_ids": ids(VOCABULARY, batch, target)}
        return {**tokens(batch, length), **decoder}

    axes = {
        "input_ids": BOTH,
        "attention_mask": BOTH,
        "decoder_input_ids": {0: "batch", 1: "target"},
    }
    dims = {**TOKENS, "target": (2, 5, 16)}
    return Entry(T5ForConditionalGeneration(config), inputs, dims, axes)
