"""Calls of `compile` as scripts for Torch-TensorRT make them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import Mlp
from torch import nn
from torch.export import Dim
from torch.testing import assert_close

import portrt
import portrt.torch_tensorrt as torch_tensorrt
from portrt.errors import CaptureError, InputError, SettingsError
from portrt.torch_tensorrt import NoEffectWarning

RANGE = {"min_shape": (1, 8), "opt_shape": (4, 8), "max_shape": (16, 8)}
ENGINE: dict[str, Any] = {"engines": "onnxruntime", "min_block_size": 1, "check": "off"}


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return Mlp().eval()


def test_inputs_in_each_form(model: nn.Module) -> None:
    x, one = torch.randn(4, 8), torch_tensorrt.Input(**RANGE)
    program = torch.export.export(model, (x,), dynamic_shapes={"x": {0: Dim("n", max=16)}})
    made = [
        torch_tensorrt.compile(model, "default", one, **ENGINE),
        torch_tensorrt.compile(model, ir="dynamo", inputs=one, **ENGINE),
        torch_tensorrt.compile(model, arg_inputs=[portrt.Input(**RANGE)], **ENGINE),
        torch_tensorrt.compile(model, kwarg_inputs={"x": one}, **ENGINE),
        torch_tensorrt.compile(program, (x,), **ENGINE),
        torch_tensorrt.dynamo.compile(program, [x], **ENGINE),
        torch_tensorrt.dynamo.compile(torch_tensorrt.dynamo.trace(model, one), one, **ENGINE),
    ]
    for size in (1, 7, 16):
        y = torch.randn(size, 8)
        for compiled in made:
            assert_close(compiled(x=y), model(y))
    with pytest.raises(InputError, match="1 to 16"):
        made[0](torch.randn(17, 8))
    fixed = torch_tensorrt.compile(model, inputs=x, **ENGINE)
    assert_close(fixed(x), model(x))


def test_trace_takes_what_export_takes(model: nn.Module) -> None:
    x = torch.randn(4, 8)
    for shapes in (None, ({0: Dim("n", max=16)},)):
        program = torch_tensorrt.dynamo.trace(model, (x,), dynamic_shapes=shapes, strict=False)
        assert_close(program.module()(x), model(x))
        assert len(program.range_constraints) == (shapes is not None)
    assert torch_tensorrt.dynamo.export(torch_tensorrt.compile(program, **ENGINE)).graph


def test_a_range_of_named_sizes_is_shared() -> None:
    class Pair(nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return torch.relu(a) @ b.transpose(0, 1)

    from typing import NamedTuple

    class Shape(NamedTuple):
        batch: int
        width: int

    shapes = {name: Shape(*RANGE[name]) for name in RANGE}
    inputs = [torch_tensorrt.Input(**shapes) for _ in range(2)]
    program = torch_tensorrt.dynamo.trace(Pair().eval(), inputs)
    assert len({str(node.meta["val"].shape[0]) for node in list(program.graph.nodes)[:2]}) == 1


@pytest.mark.parametrize("ir", ["ts", "fx", "torchscript", 3])
def test_other_frontends_are_refused(model: nn.Module, ir: Any) -> None:
    with pytest.raises(SettingsError, match=f"ir is {ir!r}"):
        torch_tensorrt.compile(model, ir, [torch.ones(1, 8)])


def test_a_script_module_is_refused_with_the_way() -> None:
    script = torch.jit.trace(Mlp().eval(), torch.ones(2, 8))
    for given in (torch.ones(2, 8), torch_tensorrt.Input(**RANGE)):
        with pytest.raises(CaptureError, match="TS2EPConverter"):
            torch_tensorrt.compile(script, inputs=given, **ENGINE)


@pytest.mark.parametrize(
    "call",
    [
        lambda model: torch_tensorrt.compile(model, "torch_compile", dynamic=False, **ENGINE),
        lambda model: torch_tensorrt.torch_compile(model, options=ENGINE),
        lambda model: torch.compile(model, backend="torch_tensorrt", options=ENGINE),
        lambda model: torch.compile(
            model, backend="tensorrt", options={**ENGINE, "use_python_runtime": True}
        ),
    ],
)
def test_torch_compile(model: nn.Module, call: Any) -> None:
    torch.compiler.reset()
    x = torch.randn(3, 8)
    with torch.no_grad():
        assert_close(call(model)(x), model(x))


def test_torch_compile_gives_the_same_errors(model: nn.Module) -> None:
    torch.compiler.reset()
    with pytest.raises(SettingsError, match="no option 'foo'"):
        torch_tensorrt.compile(model, "torch_compile", foo=1)
    with pytest.raises(SettingsError, match="no option 'foo'"), torch.no_grad():
        torch.compile(model, backend="tensorrt", options={"foo": 1})(torch.randn(3, 8))


def test_torch_compile_gives_the_same_warnings(model: nn.Module) -> None:
    torch.compiler.reset()
    with torch.no_grad(), pytest.warns(NoEffectWarning, match="truncate_double=True"):
        torch.compile(model, backend="torch_tensorrt", options={**ENGINE, "truncate_double": True})(
            torch.randn(3, 8)
        )


def test_devices(model: nn.Module) -> None:
    x = torch.randn(4, 8)
    for silent in (None, "cpu", torch.device("cpu")):
        torch_tensorrt.compile(model, inputs=x, dryrun=True, device=silent)
    for other in ("meta", torch_tensorrt.Device("dla:0", allow_gpu_fallback=True)):
        with pytest.warns(NoEffectWarning, match="device="):
            torch_tensorrt.compile(model, inputs=x, dryrun=True, device=other)
    with pytest.raises(SettingsError, match="'nowhere' was given as a device"):
        torch_tensorrt.compile(model, inputs=x, device="nowhere")


@pytest.mark.parametrize(
    ("given", "gpu", "core"),
    [
        (torch_tensorrt.Device("cuda:1"), 1, -1),
        (torch_tensorrt.Device("gpu"), 0, -1),
        (torch_tensorrt.Device(gpu_id=2), 2, -1),
        (torch_tensorrt.Device("dla:1"), 0, 1),
        (torch_tensorrt.Device(gpu_id=1, dla_core=0, allow_gpu_fallback=True), 1, 0),
    ],
)
def test_device(given: torch_tensorrt.Device, gpu: int, core: int) -> None:
    kind = torch_tensorrt.DeviceType.DLA if core >= 0 else torch_tensorrt.DeviceType.GPU
    assert (given.gpu_id, given.dla_core, given.device_type) == (gpu, core, kind)
    assert given.to(torch.device) == torch.device("cuda", gpu)
    assert f"gpu_id={gpu}" in repr(given)


@pytest.mark.parametrize("text", [None, "tpu", "cuda:x", "dla:-1"])
def test_a_device_that_is_none(text: Any) -> None:
    with pytest.raises(SettingsError, match="as a device"):
        torch_tensorrt.Device(text)


def test_names_that_portrt_lacks_are_errors_that_name_the_way() -> None:
    with pytest.raises(AttributeError, match=r"TS2EPConverter") as caught:
        torch_tensorrt.ts  # noqa: B018
    assert isinstance(caught.value, portrt.PortrtError)
    with pytest.raises(AttributeError, match="translations="):
        torch_tensorrt.dynamo.conversion  # noqa: B018
    with pytest.raises(AttributeError, match="from_plan"):
        torch_tensorrt.runtime.TorchTensorRTModule  # noqa: B018
    assert not hasattr(torch_tensorrt, "distributed")
    with pytest.raises(
        AttributeError, match=r"^module 'portrt.torch_tensorrt' has no .* 'complie'"
    ):
        torch_tensorrt.complie  # noqa: B018
    assert torch_tensorrt.__version__ == portrt.__version__
    assert torch_tensorrt.ENABLED_FEATURES.dynamo_frontend


def test_enumerations() -> None:
    dtype, layout = torch_tensorrt.dtype, torch_tensorrt.memory_format
    for name in (
        "uint8",
        "int8",
        "int32",
        "int64",
        "long",
        "half",
        "float",
        "double",
        "bool",
        "bfloat16",
    ):
        wanted = getattr(torch, name)
        assert getattr(dtype, name).to(torch.dtype) is wanted
        assert dtype.try_from(wanted) is getattr(dtype, name)
        assert dtype.try_from(name) is getattr(dtype, name)
    assert dtype.half is dtype.f16
    assert dtype.try_from(torch.complex64) is None
    with pytest.raises(SettingsError, match="has no counterpart"):
        dtype.f4.to(torch.dtype)
    assert layout.try_from(torch.channels_last) is layout.hwc
    assert layout.channels_last.to(torch.memory_format) is torch.channels_last
    assert torch_tensorrt.Platform.current_platform() is not torch_tensorrt.Platform.UNKNOWN
