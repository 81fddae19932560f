"""`MutableTorchTensorRTModule` follows the model that it was given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import Mlp
from torch import nn
from torch.testing import assert_close

import portrt.torch_tensorrt as torch_tensorrt
from portrt.errors import SettingsError

GIVEN: dict[str, Any] = {
    "engines": "onnxruntime",
    "min_block_size": 0,
    "use_fast_partitioner": True,
}


def test_it_follows_weights_and_sizes_and_is_saved(tmp_path: Path) -> None:
    model = nn.Sequential(Mlp(), nn.ReLU()).eval()
    model[0] = torch_tensorrt.MutableTorchTensorRTModule(
        model[0], device="cpu", immutable_weights=False, strict=True, **GIVEN
    )
    plain = nn.Sequential(Mlp(), nn.ReLU()).eval()
    with torch.no_grad():
        for size in (2, 5, 3):
            x = torch.randn(size, 8)
            plain[0].load_state_dict(model[0].state_dict())
            assert_close(model(x), plain(x))
            model[0].first.weight.mul_(2)
        other = Mlp().eval()
        model[0].load_state_dict(other.state_dict())
        assert_close(model[0](x), other(x))
        torch_tensorrt.MutableTorchTensorRTModule.save(model[0], tmp_path / "saved")
        loaded = torch_tensorrt.MutableTorchTensorRTModule.load(tmp_path / "saved", other)
        assert_close(loaded(x), other(x))
    with pytest.raises(SettingsError, match="without the model"):
        torch_tensorrt.MutableTorchTensorRTModule.load(tmp_path / "saved")


def test_what_has_no_effect_gives_a_warning() -> None:
    with pytest.warns(torch_tensorrt.NoEffectWarning, match="weight_streaming_budget"):
        made = torch_tensorrt.MutableTorchTensorRTModule(Mlp().eval(), weight_streaming_budget=1)
    with pytest.warns(torch_tensorrt.NoEffectWarning, match="options without an effect"):
        torch_tensorrt.MutableTorchTensorRTModule(Mlp().eval(), truncate_double=True)
    with pytest.warns(torch_tensorrt.NoEffectWarning, match="new ones") as record:
        made.set_expected_dynamic_shape_range(({0: torch.export.Dim("n")},), {})
    assert record[0].filename == __file__
    with pytest.raises(SettingsError, match="no option 'foo'"):
        torch_tensorrt.MutableTorchTensorRTModule(Mlp().eval(), foo=1)
