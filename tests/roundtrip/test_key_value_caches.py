"""A decoder's steps with its key-value cache, from a file, in a new process.

The oracle is the model without any cache, on all tokens at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from harness import TESTS, run_script
from torch import nn
from torch.export import Dim

import portrt
from portrt.runtime.calls import engine_calls

pytestmark = [
    pytest.mark.filterwarnings("ignore:The tensor attribute.*assigned during export"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # transformers' own
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:transformers"),
]
PREFIX, STEPS = 3, 8
CONFIG = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}


@pytest.fixture(scope="module")
def llama() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.integrations.executorch import register_dynamic_cache_export_support

    register_dynamic_cache_export_support()
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**CONFIG)).eval()
    model.generation_config.cache_implementation = "static"
    model.generation_config.cache_config = {"batch_size": 1, "max_cache_len": 16}
    return model


class WithPairs(nn.Module):
    """Takes and gives the key and the value of each layer, as plain lists."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, token: torch.Tensor, pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> Any:
        from transformers import DynamicCache

        cache = DynamicCache()
        for layer, (key, value) in enumerate(pairs):
            cache.update(key, value, layer)
        out = self.model(input_ids=token, past_key_values=cache, use_cache=True)
        return out.logits, [(layer.keys, layer.values) for layer in cache.layers]


class WithCache(nn.Module):
    """Takes and gives transformers' own object."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, token: torch.Tensor, cache: Any) -> Any:
        out = self.model(input_ids=token, past_key_values=cache, use_cache=True)
        return out.logits, out.past_key_values


def program_and_cache(how: str, model: Any, prefix: torch.Tensor) -> tuple[Any, Any]:
    """The compiled step, and what its first call takes as the cache."""
    if how == "static":
        from transformers.integrations.executorch import TorchExportableModuleWithStaticCache

        step = TorchExportableModuleWithStaticCache(model, 1, 16)
        given = {"input_ids": torch.tensor([[5]]), "cache_position": torch.tensor([0])}
        return compiled(step, kwarg_inputs=given), None
    with torch.no_grad():
        cache = model(input_ids=prefix, use_cache=True).past_key_values
    sizes: Any = [[{2: Dim.AUTO}] * 2] * 2
    if how == "transformers":
        return compiled(
            WithCache(model), inputs=[torch.tensor([[5]]), cache], dynamic_shapes=({}, sizes)
        ), cache
    pairs = [(layer.keys, layer.values) for layer in cache.layers]
    sizes = [tuple(pair) for pair in sizes]
    return compiled(
        WithPairs(model), inputs=[torch.tensor([[5]]), pairs], dynamic_shapes=({}, sizes)
    ), pairs


def compiled(module: nn.Module, **arguments: Any) -> Any:
    return portrt.compile(
        module.eval(), engines="onnxruntime", output_format="exported_program", **arguments
    )


@pytest.mark.parametrize("how", ["static", "pairs", "transformers"])
def test_steps_in_a_new_process_give_the_logits_of_all_tokens_at_once(
    how: str, llama: Any, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    tokens = torch.randint(0, 64, (1, PREFIX + STEPS))
    first = 0 if how == "static" else PREFIX
    program, cache = program_and_cache(how, llama, tokens[:, :PREFIX])
    assert len(list(engine_calls(program))) == 1

    file, given, found = (tmp_path / name for name in ("model.pt2", "given.pt", "found.pt"))
    portrt.save(program, file)
    torch.save({"tokens": tokens[:, first:], "cache": cache}, given)
    run_script(TESTS / "roundtrip" / "decode.py", str(file), str(given), str(found), how)

    with torch.no_grad():
        (wanted,) = llama(input_ids=tokens, use_cache=False).logits
    torch.testing.assert_close(torch.load(found), wanted[first:], rtol=1e-4, atol=1e-5)
    if how == "transformers":  # its example inputs are pickled, which portrt.load does not read
        step = portrt.load(file, output_format="module")
        logits, _ = step(tokens[:, first : first + 1], cache)
        torch.testing.assert_close(logits[0, -1], wanted[first], rtol=1e-4, atol=1e-5)
