"""`refit_module_weights`: results are those of the model that has the new weights."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from tiny import Mlp
from torch import nn
from torch.testing import assert_close

import portrt.torch_tensorrt as torch_tensorrt
from portrt.errors import CheckError, InputError, SettingsError

X = torch.randn(3, 8)
refit = torch_tensorrt.dynamo.refit_module_weights


class Hidden(nn.Module):
    """Its second number is in no state dict."""

    def __init__(self, shown: float, hidden: float) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 4)
        self.register_buffer("shown", torch.tensor(shown))
        self.register_buffer("hidden", torch.tensor(hidden), persistent=False)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.relu(self.linear(x)) + self.shown, x * self.hidden + 1


def program(model: nn.Module) -> torch.export.ExportedProgram:
    return torch.export.export(model.eval(), (X,))


def compiled(model: nn.Module, **options: Any) -> Any:
    given: dict[str, Any] = {"engines": "onnxruntime", "min_block_size": 1, **options}
    return torch_tensorrt.dynamo.compile(program(model), [X], **given)


@pytest.mark.parametrize("immutable", [True, False])
@pytest.mark.parametrize("output_format", ["module", "exported_program"])
def test_a_copy_or_the_module_itself_has_the_weights(immutable: bool, output_format: str) -> None:
    old, new = Hidden(1.0, 2.0).eval(), Hidden(3.0, 2.0).eval()
    made = compiled(old, immutable_weights=immutable, output_format=output_format)

    def run(given: Any) -> Any:
        return (given.module() if output_format == "exported_program" else given)(X)

    other = refit(made, program(new), (X,), verify_output=True)
    assert_close(run(other), new(X))
    assert_close(run(made), old(X))
    assert refit(made, new, in_place=True, verify_output=True, kwarg_inputs={"x": X}) is made
    assert_close(run(made), new(X))
    file = io.BytesIO()
    torch_tensorrt.save(other, file)
    file.seek(0)
    loaded = torch_tensorrt.load(file)
    assert_close(loaded.module()(X), new(X))
    assert_close(refit(loaded, program(old)).module()(X), old(X))


def test_what_does_not_fit_is_an_error() -> None:
    made = compiled(Hidden(1.0, 2.0))
    with pytest.raises(InputError):
        refit(made, Mlp().eval(), in_place=True)
    with pytest.raises(SettingsError, match="was given to refit_module_weights"):
        refit(Mlp().eval(), program(Mlp()))
    with pytest.raises(SettingsError, match="without inputs"):
        refit(made, program(Hidden(1.0, 2.0)), verify_output=True)
    with pytest.raises(CheckError, match="result 1 differs"):
        refit(made, program(Hidden(1.0, 5.0)), X, verify_output=True)
