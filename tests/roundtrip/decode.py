"""Decode with a saved program, in a process of its own.

`python decode.py FILE INPUTS OUTPUTS HOW`. INPUTS has {"tokens", "cache"}: tokens (1, steps), and
what the first step gets. HOW: "static" (the program keeps its cache), "pairs" (it takes and gives
key and value of each layer), "transformers" (it takes and gives a DynamicCache). OUTPUTS is written
with the logits of each step.
"""

import sys

import torch


def main(file, inputs, outputs, how):
    if how == "transformers":
        from transformers.integrations.executorch import register_dynamic_cache_export_support

        register_dynamic_cache_export_support()
    module = torch.export.load(file).module()
    given = torch.load(inputs, weights_only=False)
    torch.save(decode(module, given["tokens"], given["cache"], how), outputs)


def decode(module, tokens, cache, how):
    """Logits of each step, (steps, vocabulary)."""
    found = []
    with torch.no_grad():
        for step in range(tokens.shape[1]):
            token = tokens[:, step : step + 1]
            if how == "static":
                logits = module(input_ids=token, cache_position=torch.tensor([step]))
            else:
                logits, cache = module(token, cache)
            found.append(logits[0, -1])
    return torch.stack(found)


if __name__ == "__main__":
    main(*sys.argv[1:])
