"""The callable that compile returns refuses wrong inputs by name, with both values."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

import portrt
from portrt.errors import InputError, SettingsError


class Model(torch.nn.Module):
    def forward(
        self, ids: torch.Tensor, mask: torch.Tensor, *, scale: torch.Tensor | None = None
    ) -> torch.Tensor:
        out = torch.relu(ids.float() * mask)
        return out if scale is None else out * scale


@pytest.fixture(scope="module")
def module() -> Any:
    dims = {
        0: torch.export.Dim("batch", min=1, max=8),
        1: torch.export.Dim("length", min=1, max=16),
    }
    return portrt.compile(
        Model().eval(),
        inputs=[torch.ones(2, 4, dtype=torch.int64), torch.ones(2, 4)],
        dynamic_shapes={"ids": dims, "mask": dims},
        engines="onnxruntime",
    )


def ids(*shape: int) -> torch.Tensor:
    return torch.ones(shape, dtype=torch.int64)


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        ((ids(9, 4), torch.ones(9, 4)), ("'ids'", "(9, 4)", "from 1 to 8", "dimension 0")),
        ((ids(2, 17), torch.ones(2, 17)), ("'ids'", "(2, 17)", "from 1 to 16", "dimension 1")),
        ((ids(2, 4), torch.ones(3, 4)), ("'mask'", "(3, 4)", "2 in dimension 0")),
        ((ids(2, 4), torch.ones(2)), ("'mask'", "(2,)", "rank 2")),
        ((ids(2, 4).int(), torch.ones(2, 4)), ("'ids'", "torch.int32", "torch.int64")),
        ((ids(2, 4), torch.ones(2, 4, dtype=torch.half)), ("'mask'", "float16", "float32")),
        ((ids(2, 4), torch.ones(2, 4, device="meta")), ("'mask' on meta", "one device")),
    ],
)
def test_wrong_input_is_named_with_both_values(module: Any, args: Any, parts: tuple[str]) -> None:
    with pytest.raises(InputError) as caught:
        module(*args)
    for part in parts:
        assert part in str(caught.value)


def test_wrong_number_and_name_are_refused(module: Any) -> None:
    with pytest.raises(
        InputError, match=r"1 positional(.|\n)*2 positional arguments \(ids, mask\)"
    ):
        module(ids(2, 4))
    with pytest.raises(InputError, match="by keyword length"):
        module(ids(2, 4), torch.ones(2, 4), length=3)
    with pytest.raises(InputError, match="called with 3 positional"):
        module(ids(2, 4), torch.ones(2, 4), torch.ones(2, 4))


def test_another_python_number_is_refused_after_a_good_call() -> None:
    class Scale(torch.nn.Module):
        def forward(self, x: torch.Tensor, times: int) -> torch.Tensor:
            return torch.relu(x) * times

    x = torch.randn(3)
    module = portrt.compile(Scale().eval(), inputs=[x, 3], engines="onnxruntime", min_block_size=1)
    torch.testing.assert_close(module(x, 3), torch.relu(x) * 3)
    with pytest.raises(Exception, match="times"):
        module(x, 4)


def test_right_inputs_pass_after_wrong_ones(module: Any) -> None:
    with pytest.raises(InputError):
        module(ids(9, 4), torch.ones(9, 4))
    for batch, length in ((1, 1), (8, 16), (3, 5), (3, 5)):
        given = torch.randn(batch, length)
        torch.testing.assert_close(module(ids(batch, length), given), torch.relu(given))


def test_module_exports_and_compiles_again(module: Any) -> None:
    args = (ids(2, 4), torch.randn(2, 4))
    expected = torch.relu(args[1])
    again = torch.export.export(module, args, strict=False)
    torch.testing.assert_close(again.module()(*args), expected)
    compiled = torch.compile(module, backend="aot_eager")
    torch.testing.assert_close(compiled(*args), expected)


def test_positional_arguments_by_keyword(module: Any) -> None:
    given = torch.ones(2, 4, dtype=torch.int64), torch.rand(2, 4)
    wanted = Model()(*given)
    assert torch.equal(module(ids=given[0], mask=given[1]), wanted)
    assert torch.equal(module(mask=given[1], ids=given[0]), wanted)
    assert torch.equal(module(given[0], mask=given[1]), wanted)
    with pytest.raises(InputError, match="by keyword masks"):
        module(given[0], masks=given[1])
    with pytest.raises(InputError, match="by keyword ids"):
        module(given[0], given[1], ids=given[0])


def test_positional_and_keyword_arguments_by_keyword() -> None:
    x, y, scale = torch.ones(2, 4, dtype=torch.int64), torch.rand(2, 4), torch.rand(2, 4)
    program = portrt.compile(
        Model().eval(), inputs=[x, y], kwarg_inputs={"scale": scale}, engines="onnxruntime"
    )
    wanted = Model()(x, y, scale=scale)
    assert torch.equal(program(scale=scale, mask=y, ids=x), wanted)
    assert torch.equal(program(x, scale=scale, mask=y), wanted)
    with pytest.raises(InputError, match="scale"):
        program(x, mask=y)


@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")
def test_a_program_is_a_module_like_others(module: Any, tmp_path: Any) -> None:
    given = torch.ones(2, 4, dtype=torch.int64), torch.rand(2, 4)
    portrt.save(module, tmp_path / "model.pt2")
    loaded = portrt.load(tmp_path / "model.pt2", output_format="module")
    for made in (module, copy.deepcopy(module), loaded):
        assert made.eval() is made
        assert made.train(False) is made
        assert not made.training
        assert made.to("cpu") is made
        made.load_state_dict(made.state_dict())
        parent = torch.nn.ModuleDict({"child": made}).eval()
        assert torch.equal(parent["child"](*given), Model()(*given))
        for wrong in (made, parent) if made in (module, loaded) else ():
            with pytest.raises(SettingsError, match=r"eval\(\)"):
                wrong.train()
