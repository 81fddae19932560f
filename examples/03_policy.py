"""Demand an engine, or forbid one: a program never changes silently to something slower."""

import warnings

import torch

import portrt

model, x = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Tanh()).eval(), torch.randn(2, 8)
compiled = portrt.compile(model, inputs=[x], engines="onnxruntime", fallback="error")
torch.testing.assert_close(compiled(x), model(x))

with portrt.runtime.policy(engines=()):  # no engine is allowed, and PyTorch is not either
    try:
        compiled(x)
    except portrt.errors.NoUsableEngineError as err:
        print(err)

with (
    portrt.runtime.policy(engines=(), fallback="eager"),
    warnings.catch_warnings(record=True) as said,
):
    warnings.simplefilter("always")
    torch.testing.assert_close(compiled(x), model(x))
    print(said[0].message)
