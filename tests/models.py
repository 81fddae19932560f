"""The tiny models that the tests compile, each with its inputs, dynamic shapes and tolerances.

Eager PyTorch is the oracle: a case holds no expected numbers.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from custom_ops import shifted_relu
from torch import nn
from torch.export import Dim

import portrt

Call = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class Case:
    """A model and how to compile and call it.

    Attributes:
        name: Unique.
        build: Makes the model; the seed is set before.
        calls: Makes the arguments of the calls that are compared with eager, in order. The first
            is what the model is compiled with, unless `inputs` says otherwise.
        blocks: How many blocks engines take.
        inputs: What is given to compile as arg_inputs.
        dynamic_shapes: As torch.export takes it.
        options: Further options of compile.
        rtol: Relative tolerance.
        atol: Absolute tolerance.
        train: Compile in training mode.
        needs: Modules that a new process imports to load the program: torch's own formats cannot
            say what is in them.
    """

    name: str
    build: Callable[[], nn.Module]
    calls: Callable[[], Sequence[Any]]
    blocks: int = 1
    inputs: Sequence[Any] | None = None
    dynamic_shapes: Any = None
    options: dict[str, Any] = field(default_factory=dict)
    rtol: float = 1e-5
    atol: float = 1e-5
    train: bool = False
    needs: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.name

    def model(self) -> nn.Module:
        """The model, the same each time."""
        torch.manual_seed(0)
        return self.build().train(self.train)

    def arguments(self) -> list[Call]:
        """(args, kwargs) of each call, the same each time."""
        torch.manual_seed(1)
        return [
            call if isinstance(call, tuple) and _is_call(call) else (_as_tuple(call), {})
            for call in self.calls()
        ]

    def compile(self, **options: Any) -> Any:
        """The compiled ExportedProgram."""
        args, kwargs = self.arguments()[0]
        settings = {
            "engines": ("onnxruntime",),
            "min_block_size": 1,
            "output_format": "exported_program",
            **self.options,
            **options,
        }
        return portrt.compile(
            self.model(),
            arg_inputs=args if self.inputs is None else self.inputs,
            kwarg_inputs=kwargs or None,
            dynamic_shapes=self.dynamic_shapes,
            **settings,
        )


def _is_call(value: tuple[Any, ...]) -> bool:
    return len(value) == 2 and isinstance(value[0], tuple) and isinstance(value[1], dict)


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


CASES: dict[str, Case] = {}


def case(name: str, calls: Callable[[], Sequence[Any]], **rest: Any) -> Callable[[Any], Any]:
    """Register a module class, or a function that makes a module."""

    def add(build: Any) -> Any:
        assert name not in CASES
        CASES[name] = Case(name, build, calls, **rest)
        return build

    return add


def randn(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape).to(dtype)


def lambda_module(function: Callable[..., Any]) -> Callable[[], nn.Module]:
    """A factory of modules that hold nothing and compute `function`."""

    class Function(nn.Module):
        forward = staticmethod(function)

    return Function


def function_case(
    name: str, function: Callable[..., Any], calls: Callable[[], Sequence[Any]], **rest: Any
) -> None:
    CASES[name] = Case(name, lambda_module(function), calls, **rest)


BATCH = {0: Dim("batch", min=1, max=16)}


# ---- inputs and outputs of many kinds ----------------------------------------------------------


@case(
    "mlp",
    lambda: [randn(3, 4), randn(1, 4), randn(8, 4)],
    inputs=[portrt.Input(min_shape=(1, 4), opt_shape=(3, 4), max_shape=(8, 4))],
)
def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


CASES["mlp_opt_of_one"] = Case(
    "mlp_opt_of_one",
    mlp,
    lambda: [randn(1, 4), randn(5, 4)],
    inputs=[portrt.Input(min_shape=(1, 4), opt_shape=(1, 4), max_shape=(8, 4))],
)
CASES["mlp_static"] = Case("mlp_static", mlp, lambda: [randn(3, 4), randn(3, 4)])
CASES["mlp_static_of_one"] = Case("mlp_static_of_one", mlp, lambda: [randn(1, 4)])
CASES["mlp_empty_batch"] = Case(
    "mlp_empty_batch",
    mlp,
    lambda: [randn(3, 4), randn(0, 4), randn(1, 4), randn(2, 4)],
    inputs=[portrt.Input(min_shape=(0, 4), opt_shape=(3, 4), max_shape=(8, 4))],
)
CASES["mlp_rank_one"] = Case("mlp_rank_one", mlp, lambda: [randn(4)])
CASES["mlp_float16"] = Case(
    "mlp_float16",
    lambda: mlp().half(),
    lambda: [randn(3, 4, dtype=torch.half), randn(1, 4, dtype=torch.half)],
    dynamic_shapes=(BATCH,),
    rtol=1e-2,
    atol=2e-3,
)
CASES["mlp_bfloat16"] = Case(
    "mlp_bfloat16",
    lambda: mlp().bfloat16(),
    lambda: [randn(3, 4, dtype=torch.bfloat16), randn(1, 4, dtype=torch.bfloat16)],
    dynamic_shapes=(BATCH,),
    rtol=2e-2,
    atol=1e-2,
)
CASES["mlp_float64"] = Case(
    "mlp_float64",
    lambda: mlp().double(),
    lambda: [randn(3, 4, dtype=torch.double)],
    rtol=1e-12,
    atol=1e-12,
)
CASES["mlp_dim_auto"] = Case(
    "mlp_dim_auto",
    mlp,
    lambda: [randn(3, 4), randn(1, 4), randn(7, 4)],
    dynamic_shapes=({0: Dim.AUTO},),
)
CASES["mlp_dim_dynamic"] = Case(
    "mlp_dim_dynamic",
    mlp,
    lambda: [randn(3, 4), randn(1, 4), randn(7, 4)],
    dynamic_shapes=({0: Dim.DYNAMIC},),
)
CASES["mlp_transposed_input"] = Case(
    "mlp_transposed_input",
    mlp,
    lambda: [randn(3, 4), randn(4, 3).t(), randn(6, 8)[::2, ::2]],
    dynamic_shapes=(BATCH,),
)
CASES["mlp_traced_transposed"] = Case(
    "mlp_traced_transposed",
    mlp,
    lambda: [randn(4, 3).t(), randn(3, 4)],
    dynamic_shapes=(BATCH,),
)

function_case(
    "nested_outputs",
    lambda x, y: {"pair": (x + 1, [y * 2, x @ y]), "one": x.relu()},
    lambda: [(randn(3, 4), randn(4, 3)), (randn(3, 4), randn(4, 3))],
)
function_case(
    "nested_inputs",
    lambda tree, rest: tree["a"] * tree["b"][0] + rest[1] - rest[0]["c"],
    lambda: [
        ({"a": randn(3, 4), "b": [randn(3, 4)]}, ({"c": randn(4)}, randn(3, 4))) for _ in range(2)
    ],
)
function_case(
    "nested_inputs_dynamic",
    lambda tree, rest: tree["a"] * tree["b"][0] + rest[1],
    lambda: [({"a": randn(n, 4), "b": [randn(n, 4)]}, [randn(4), randn(n, 4)]) for n in (3, 1, 5)],
    inputs=(
        {
            "a": portrt.Input(
                min_shape=(1, 4), opt_shape=(3, 4), max_shape=(8, 4), shared_dims={0: "n"}
            ),
            "b": [
                portrt.Input(
                    min_shape=(1, 4), opt_shape=(3, 4), max_shape=(8, 4), shared_dims={0: "n"}
                )
            ],
        },
        [
            portrt.Input((4,)),
            portrt.Input(
                min_shape=(1, 4), opt_shape=(3, 4), max_shape=(8, 4), shared_dims={0: "n"}
            ),
        ],
    ),
)
function_case("none_output", lambda x: (x * 2, None, [None, x.relu()]), lambda: [randn(3, 4)] * 2)
function_case("input_is_output", lambda x, y: (x, x * y, y), lambda: [(randn(3), randn(3))] * 2)
function_case("only_input_is_output", lambda x: x, lambda: [randn(3)], blocks=0)
function_case("number_output", lambda x: (x * 2, 3, 2.5, True, x.shape[1]), lambda: [randn(3, 4)])
function_case(
    "size_output",
    lambda x: (x * 2, x.shape[0], x.shape[0] * 2 + 1),
    lambda: [randn(3, 4), randn(5, 4), randn(1, 4)],
    dynamic_shapes=(BATCH,),
)
function_case("same_output_twice", lambda x: ((y := x * 2), y), lambda: [randn(3, 4)])
function_case("view_of_input_output", lambda x: (x.view(-1), x + 1), lambda: [randn(3, 4)])
function_case(
    "int_bool_scalar_inputs",
    lambda i, b, s: torch.where(b, i.float() * s, -s),
    lambda: [
        (torch.arange(6).view(2, 3), torch.rand(2, 3) > 0.5, torch.tensor(2.5)),
        (torch.arange(6).view(2, 3) * 5, torch.rand(2, 3) > 0.5, torch.tensor(-1.0)),
    ],
)
function_case(
    "python_numbers_in", lambda x, n, f: x * n + f, lambda: [(randn(3), 3, 0.5), (randn(3), 3, 0.5)]
)
function_case("none_input", lambda x, y=None: x * 2 if y is None else y, lambda: [(randn(3), None)])
function_case("ignored_input", lambda x, y: x * 2, lambda: [(randn(3, 4), randn(2))] * 2)
function_case(
    "ignored_dynamic_input",
    lambda x, y: x * 2,
    lambda: [(randn(3, 4), randn(2)), (randn(1, 4), randn(9))],
    dynamic_shapes=(BATCH, {0: Dim("other", min=1, max=32)}),
)
function_case(
    "keyword_inputs",
    lambda x, *, scale, shift=None: x * scale + (0 if shift is None else shift),
    lambda: [((randn(3, 4),), {"scale": randn(4), "shift": randn(3, 1)}) for _ in range(2)],
)
function_case(
    "keyword_inputs_any_order",
    lambda x, a, b: x * a - b,
    lambda: [
        ((randn(3),), {"b": randn(3), "a": randn(3)}),
        ((randn(3),), {"a": randn(3), "b": randn(3)}),
    ],
)
function_case(
    "input_named_input",
    lambda input, list: input * list,  # noqa: A006  (names that torch.fx would change)
    lambda: [(randn(3), randn(3))] * 2,
)
function_case("varargs", lambda *parts: sum(parts) * 2, lambda: [(randn(3), randn(3), randn(3))])
function_case(
    "int64_arithmetic",
    lambda a, b: (a // b, a % b, a * b + (a >> 1), (a - b).abs(), a / b, a & b, a == b),
    lambda: [
        (torch.randint(-(2**40), 2**40, (4, 5)), torch.randint(1, 1000, (4, 5))),
        (torch.randint(-100, 100, (4, 5)), torch.randint(1, 7, (4, 5))),
        (torch.tensor([[-7, 7, -1, 0, 5]] * 4), torch.tensor([[2, -2, 3, 5, -5]] * 4)),
    ],
)
function_case(
    "sum_of_nothing_left",
    lambda x: x.sum(),
    lambda: [randn(3, 4), randn(5, 4)],
    dynamic_shapes=(BATCH,),
)


@case("constant_output", lambda: [randn(3), randn(3)])
class ConstantOutput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.randn(2, 2))

    def forward(self, x: torch.Tensor) -> Any:
        return x * 2, self.table, torch.tensor([1.0, 2.0]), torch.ones(2)


@case("tied_weights", lambda: [torch.randint(0, 11, (2, 5)), torch.randint(0, 11, (2, 5))])
class TiedWeights(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.embed(ids))


@case("buffers", lambda: [randn(3, 4), randn(1, 4)], dynamic_shapes=(BATCH,))
class Buffers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kept", torch.randn(4))
        self.register_buffer("not_kept", torch.randn(4), persistent=False)
        self.plain = torch.randn(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.kept + self.not_kept - self.plain


@case("counter", lambda: [randn(3, 4)] * 4, dynamic_shapes=(BATCH,))
class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.weight = nn.Parameter(torch.randn(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count += 1
        return x * self.weight + self.count


@case("running_mean", lambda: [randn(3, 4), randn(5, 4), randn(1, 4)], dynamic_shapes=(BATCH,))
class RunningMean(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(4), persistent=False)
        self.lin = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.lin(x)
        self.mean.mul_(0.9).add_(y.mean(0), alpha=0.1)
        return y - self.mean


@case("cache_write", lambda: [(randn(4), torch.tensor(n)) for n in (0, 2, 1)])
class CacheWrite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("cache", torch.zeros(3, 4))

    def forward(self, row: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
        self.cache.index_copy_(0, place.view(1), (row * 2).view(1, 4))
        return self.cache.sum(1) + row.sum()


@case("batch_norm_training", lambda: [randn(6, 4), randn(6, 4)], train=True, blocks=1)
def batch_norm_training() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU())


def _writes_input(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    x.add_(y)
    return x * 2


function_case("mutated_input", _writes_input, lambda: [(randn(3), randn(3))] * 3)


@case("strided_parameter", lambda: [randn(3, 4)])
class StridedParameter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.turned = nn.Parameter(torch.randn(5, 4).t())
        self.every_other = nn.Parameter(torch.randn(10)[::2])
        self.register_buffer("wide", torch.randn(1).expand(5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.turned + self.every_other * self.wide


@case("nan_weights", lambda: [randn(3, 4)])
def nan_weights() -> nn.Module:
    linear = nn.Linear(4, 3)
    with torch.no_grad():
        linear.weight[0, 0] = float("nan")
        linear.weight[1, 0] = float("inf")
    return linear


@case("empty_parameter", lambda: [randn(3, 4)])
class EmptyParameter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.none = nn.Parameter(torch.empty(0, 4))
        self.lin = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.lin(x), self.none])


@case("shared_buffer_view", lambda: [randn(4)])
class ViewsOfOneStorage(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        both = torch.randn(2, 4)
        self.register_buffer("first", both[0])
        self.register_buffer("second", both[1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.first + self.second


@case(
    "two_inputs_shared_dims",
    lambda: [(randn(n, k), randn(n, 3)) for n, k in ((2, 5), (1, 2), (4, 7))],
    inputs=[
        portrt.Input(
            min_shape=(1, 2),
            opt_shape=(2, 4),
            max_shape=(8, 9),
            shared_dims={0: "batch", 1: "length"},
            name="x",
        ),
        portrt.Input(
            min_shape=(1, 3),
            opt_shape=(2, 3),
            max_shape=(8, 3),
            shared_dims={0: "batch"},
            dtype=torch.float32,
        ),
    ],
)
class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x.sum(1, keepdim=True) * self.lin(y) + x.shape[1]


# ---- real layers --------------------------------------------------------------------------------


def tiny_bert() -> nn.Module:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    return BertModel(config)


def _tokens(batch: int, length: int) -> Call:
    ids = torch.randint(0, 50, (batch, length))
    mask = torch.ones_like(ids)
    mask[0, length // 2 + 1 :] = 0
    return (), {"input_ids": ids, "attention_mask": mask}


_TOKENS = {0: Dim("batch", min=1, max=8), 1: Dim("length", min=2, max=32)}
CASES["bert"] = Case(
    "bert",
    tiny_bert,
    lambda: [_tokens(2, 7), _tokens(1, 4), _tokens(3, 12)],
    dynamic_shapes={"input_ids": _TOKENS, "attention_mask": _TOKENS},
    needs=("transformers.modeling_outputs", "transformers.models.bert.modeling_bert"),
)


@case(
    "transformer_layer",
    lambda: [randn(2, 5, 8), randn(1, 3, 8)],
    dynamic_shapes=({0: Dim("b", max=8), 1: Dim("t", max=16)},),
)
def transformer_layer() -> nn.Module:
    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.qkv, self.out = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 8)
            self.drop = nn.Dropout(0.5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            b, t, _ = x.shape
            q, k, v = self.qkv(self.norm(x)).view(b, t, 3, 2, 4).permute(2, 0, 3, 1, 4)
            y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            return x + self.drop(nn.functional.gelu(self.out(y.transpose(1, 2).reshape(b, t, 8))))

    return Layer()


@case("lstm", lambda: [randn(2, 5, 4), randn(2, 5, 4)])
def lstm() -> nn.Module:
    return nn.LSTM(4, 6, batch_first=True)


_IMAGE = {0: Dim("n", min=1, max=4), 2: Dim("h", min=8, max=64), 3: Dim("w", min=8, max=64)}


@case(
    "conv_dynamic_size",
    lambda: [randn(2, 3, 16, 20), randn(1, 3, 9, 33), randn(3, 3, 8, 8)],
    dynamic_shapes=(_IMAGE,),
)
def conv_dynamic_size() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 5, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(5, 2),
    )


@case(
    "conv_keeps_size", lambda: [randn(2, 3, 16, 20), randn(1, 3, 9, 33)], dynamic_shapes=(_IMAGE,)
)
def conv_keeps_size() -> nn.Module:
    return nn.Conv2d(3, 4, 3, stride=2, padding=1)


function_case(
    "interpolate",
    lambda x: nn.functional.interpolate(x, scale_factor=2.0, mode="nearest"),
    lambda: [randn(2, 3, 16, 20), randn(1, 3, 9, 33)],
    dynamic_shapes=(_IMAGE,),
)
function_case(
    "interpolate_bilinear",
    lambda x: nn.functional.interpolate(x, size=(7, 5), mode="bilinear", align_corners=False),
    lambda: [randn(2, 3, 16, 20), randn(1, 3, 9, 33)],
    dynamic_shapes=(_IMAGE,),
)
function_case(
    "cat_of_two_lengths",
    lambda x, y: torch.cat([x, y]) * 2,
    lambda: [(randn(3, 4), randn(5, 4)), (randn(1, 4), randn(2, 4))],
    dynamic_shapes=({0: Dim("a", max=9)}, {0: Dim("b", max=9)}),
)
function_case(
    "even_batch",
    lambda x: x.view(x.shape[0] // 2, 2, 4).sum(1) * 3,
    lambda: [randn(4, 4), randn(6, 4), randn(10, 4)],
    dynamic_shapes=({0: 2 * Dim("half", min=1, max=8)},),
)
function_case(
    "related_dims",
    lambda x, y: x[1:] + y,
    lambda: [(randn(4), randn(3)), (randn(7), randn(6))],
    dynamic_shapes=({0: Dim("n", min=2, max=20) + 1}, {0: Dim("n", min=2, max=20)}),
)
function_case(
    "complex_in_and_out",
    lambda x, y: (torch.fft.ifft(torch.fft.fft(x) * y), (x * y.conj()).abs()),
    lambda: [
        (torch.randn(n, 6, dtype=torch.complex64), torch.randn(6, dtype=torch.complex64))
        for n in (3, 1, 8)
    ],
    dynamic_shapes=(BATCH, None),
    rtol=1e-4,
    atol=1e-5,
)

# ---- what stays in PyTorch ----------------------------------------------------------------------


@case(
    "custom_op_between",
    lambda: [randn(3, 4), randn(1, 4), randn(6, 4)],
    blocks=2,
    dynamic_shapes=(BATCH,),
    needs=("custom_ops",),
)
class CustomOpBetween(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(shifted_relu(self.first(x).tanh(), 0.5).sigmoid())


@case(
    "nonzero",
    lambda: [randn(3, 4), -randn(6, 4).abs(), randn(1, 4)],
    dynamic_shapes=(BATCH,),
)
class Nonzero(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> Any:
        y = self.lin(x).relu()
        found = torch.nonzero(y)
        return found, found.sum() + 1, y * 2


class _Masked(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x.tanh() * 2
        return (y[y > 0] * 3).sum() + y.mean()


case("boolean_index", lambda: [randn(5, 4), randn(2, 4)], dynamic_shapes=(BATCH,))(_Masked)


@case("random", lambda: [randn(3, 4), randn(5, 4)], blocks=2, dynamic_shapes=(BATCH,))
class Random(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.lin(x)
        return (y + torch.rand_like(y)).relu() * 2


@case("dropout_training", lambda: [randn(3, 4)], blocks=2, train=True)
def dropout_training() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 2))


@case(
    "two_towers",
    lambda: [(randn(3, 4), randn(5, 4)), (randn(1, 4), randn(2, 4))],
    dynamic_shapes=({0: Dim("a", max=9)}, {0: Dim("b", max=9)}),
    blocks=1,
)
class TwoTowers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = mlp(), mlp()

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        return self.left(x), self.right(y)


@case(
    "two_towers_joined_in_pytorch",
    lambda: [(randn(3, 4), randn(3, 4)), (randn(1, 4), randn(1, 4))],
    dynamic_shapes=(BATCH, BATCH),
    blocks=2,
    needs=("custom_ops",),
)
class TwoTowersJoined(TwoTowers):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        left, right = self.left(x), self.right(y)
        return shifted_relu(left * right, 0.1), shifted_relu(left, 0.1) + right


@case(
    "weight_used_on_both_sides",
    lambda: [randn(3, 4), randn(2, 4)],
    dynamic_shapes=(BATCH,),
    needs=("custom_ops",),
)
class WeightOnBothSides(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x @ self.weight).relu() @ shifted_relu(self.weight, 0.2) + 1


@case(
    "sizes_on_both_sides",
    lambda: [randn(3, 4), randn(2, 5), randn(4, 6)],
    blocks=2,
    dynamic_shapes=({0: Dim("n", max=16), 1: Dim("k", min=2, max=16)},),
    needs=("custom_ops",),
)
class SizesOnBothSides(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, k = x.shape
        y = (x.view(n * k) * torch.arange(n * k)).view(k, n)
        y = shifted_relu(y, 0.3)
        rows = torch.arange(k).view(k, 1).expand(k, n)
        return (y + rows).reshape(n, k).sum(1) / (n * k) + torch.ones(n) * k


@case(
    "size_of_pytorch_result",
    lambda: [randn(3, 4), randn(6, 4)],
    dynamic_shapes=(BATCH,),
    blocks=2,
    needs=("custom_ops",),
)
class SizeOfPytorchResult(nn.Module):
    """The only size that the block needs is one of a tensor that PyTorch computes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = shifted_relu(x.sum(), 0.1)
        return torch.zeros(x.shape[0]) + y.tanh() * 2


class Cond(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.lin(x).tanh()
        z = torch.cond(y.sum() > 0, lambda t: t.relu() + 1, lambda t: t * 3, (y,))
        return z.sigmoid() * 2


case(
    "cond",
    lambda: [randn(3, 4), randn(3, 4) + 3, randn(3, 4) - 3, randn(1, 4)],
    dynamic_shapes=(BATCH,),
)(Cond)


function_case(
    "nothing_to_compile",
    lambda x: shifted_relu(x, 0.5),
    lambda: [randn(3, 4)],
    blocks=0,
    needs=("custom_ops",),
)
function_case(
    "constant_block",
    lambda x: (shifted_relu(x, 0.5), torch.arange(5) * 3 + 1),
    lambda: [randn(3, 4)],
    blocks=0,
    needs=("custom_ops",),
)
function_case(
    "chunks",
    lambda x: [part * (i + 1) for i, part in enumerate(x.chunk(3, 1))],
    lambda: [randn(2, 6), randn(1, 6)],
    dynamic_shapes=(BATCH,),
)
function_case(
    "topk_sort",
    lambda x: (*x.topk(3, -1), x.sort(-1).values, *x.max(-1), x.argmax(-1)),
    lambda: [randn(2, 6), randn(1, 6)],
    dynamic_shapes=(BATCH,),
)
function_case(
    "operators_python",
    lambda x, y: operator.matmul(x, y) ** 2,
    lambda: [(randn(2, 3), randn(3, 2))],
)
