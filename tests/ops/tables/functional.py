"""What torch.nn's modules and functions lower to in models."""

from __future__ import annotations

import torch
from torch.nn import functional as F  # noqa: N812

from ops.case import Case, T, rows

_HALF = ("f32", "f16", "bf16")
IMAGE = "b,4,8,8"


def _row(
    name: str, variant: str, *args: object, over: tuple[str, ...] = ("f32",), **options: object
) -> list[Case]:
    options.setdefault("function", getattr(F, name, None))
    return rows(f"nn.functional.{name}", *args, over=over, variant=variant, **options)


_ACTIVATIONS = (
    "celu",
    "elu",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "leaky_relu",
    "logsigmoid",
    "mish",
    "relu",
    "relu6",
    "selu",
    "silu",
    "softplus",
    "softshrink",
    "softsign",
    "tanhshrink",
)


def _recurrent(kind: type[torch.nn.Module], **options: object) -> object:
    torch.manual_seed(0)
    module = kind(4, 3, batch_first=True, **options).eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return lambda x: module(x)[0]


_ATTENTION = torch.nn.MultiheadAttention(8, 2, batch_first=True).eval().requires_grad_(False)

CASES = [
    *[row for name in _ACTIVATIONS for row in _row(name, "plain", T("b,5", -4, 4), over=_HALF)],
    *_row("rrelu", "eval", T("b,5"), stays="random numbers"),
    *_row("glu", "plain", T("b,6"), over=_HALF),
    *_row("prelu", "plain", T("b,4,3"), T("4"), over=("f32", "f16")),
    *_row("threshold", "plain", T("b,5"), 0.5, -1.0),
    *_row("gelu", "erf", T("b,5", -4, 4), over=_HALF),
    *_row("gelu", "tanh", T("b,5", -4, 4), over=_HALF, approximate="tanh"),
    *_row("softplus", "large", T("b,5", -30, 30), 2.0, 5.0),
    *_row("softmin", "plain", T("b,5"), dim=-1),
    *_row("softmax", "another dtype", T("b,5"), dim=-1, dtype=torch.float32, over=("f16", "bf16")),
    *_row(
        "log_softmax", "another dtype", T("b,5"), dim=-1, dtype=torch.float32, over=("f16", "bf16")
    ),
    *_row("normalize", "plain", T("b,5"), over=("f32", "f16")),
    *_row("normalize", "norm 1", T("b,5,2"), p=1.0, dim=-1),
    *_row("cosine_similarity", "plain", T("b,5"), T("b,5")),
    *_row("pairwise_distance", "plain", T("b,5"), T("b,5")),
    *_row("layer_norm", "plain", T("b,s,4"), [4], T("4"), T("4"), over=_HALF),
    *_row("layer_norm", "two dimensions", T("b,3,4"), [3, 4]),
    *_row("rms_norm", "plain", T("b,s,4"), [4], T("4"), over=_HALF),
    *_row("rms_norm", "eps", T("b,s,4"), [4], T("4"), 1e-3, over=("f32", "f16")),
    *_row("rms_norm", "without weight", T("b,3,4"), [4]),
    *_row("rms_norm", "two dimensions", T("b,3,4"), [3, 4], T("3,4")),
    *_row("group_norm", "plain", T(IMAGE), 2, T("4"), T("4"), over=_HALF),
    *_row("group_norm", "sequence", T("b,4,s"), 4, T("4"), T("4")),
    *_row("group_norm", "without weights", T("b,4"), 2, tolerance=(1e-3, 1e-3)),  # of two numbers
    *_row("instance_norm", "plain", T(IMAGE), over=("f32", "f16")),
    *_row("instance_norm", "sequence", T("b,4,8")),
    *_row("batch_norm", "eval", T(IMAGE), T("4"), T("4", 1, 2), T("4"), T("4"), over=_HALF),
    *_row(
        "batch_norm",
        "training",
        T(IMAGE),
        function=lambda x: F.batch_norm(x, torch.zeros(4), torch.ones(4), training=True),
    ),
    *_row("local_response_norm", "plain", T(IMAGE), 3),
    *_row("linear", "plain", T("b,s,4"), T("5,4"), T("5"), over=_HALF),
    *_row("bilinear", "plain", T("b,4"), T("b,3"), T("5,4,3"), T("5")),
    *_row("conv1d", "plain", T("b,4,8"), T("6,2,3"), T("6"), groups=2, over=_HALF),
    *_row("conv1d", "same", T("b,4,8"), T("6,4,3"), padding="same", dilation=2),
    *_row("conv2d", "plain", T(IMAGE), T("6,4,3,3"), T("6"), over=_HALF),
    *_row("conv2d", "same", T(IMAGE), T("6,4,3,3"), padding="same"),
    *_row("conv2d", "without batch", T("4,8,8"), T("6,4,3,3")),
    *_row("conv3d", "plain", T("b,2,4,4,4"), T("3,2,2,2,2"), over=("f32", "f16")),
    *_row(
        "conv_transpose1d",
        "plain",
        T("b,4,8"),
        T("4,3,3"),
        stride=2,
        output_padding=1,
        over=("f32", "f16"),
    ),
    *_row(
        "conv_transpose2d", "plain", T(IMAGE), T("4,3,3,3"), T("3"), stride=2, padding=1, over=_HALF
    ),
    *_row("conv_transpose3d", "plain", T("b,2,3,3,3"), T("2,3,2,2,2"), stride=2),
    *_row("max_pool1d", "plain", T("b,4,8"), 2, over=("f32", "f16")),
    *_row("max_pool2d", "plain", T(IMAGE), 3, 2, 1, over=_HALF),
    *_row("max_pool2d", "ceil", T(IMAGE), 3, 2, ceil_mode=True),
    *_row("max_pool3d", "plain", T("b,2,4,4,4"), 2),
    *_row("avg_pool1d", "plain", T("b,4,8"), 3, 2, over=("f32", "f16")),
    *_row("avg_pool2d", "plain", T(IMAGE), 3, 2, 1, over=_HALF),
    *_row("avg_pool2d", "divisor", T(IMAGE), 3, 2, 1, divisor_override=4),
    *_row("lp_pool2d", "plain", T(IMAGE, 0.1, 2), 2.0, 2),
    *_row("adaptive_avg_pool1d", "plain", T("b,4,8"), 4),
    *_row("adaptive_avg_pool1d", "uneven", T("b,4,8"), 3),
    *_row("adaptive_avg_pool2d", "one", T(IMAGE), 1, over=_HALF),
    *_row("adaptive_avg_pool2d", "even", T(IMAGE), (4, 2)),
    *_row("adaptive_avg_pool2d", "uneven", T(IMAGE), (3, 5)),
    *_row("adaptive_avg_pool3d", "one", T("b,2,4,4,4"), 1),
    *_row("adaptive_max_pool1d", "even", T("b,4,8"), 4),
    *_row("adaptive_max_pool2d", "even", T(IMAGE), (4, 2)),
    *_row("adaptive_max_pool2d", "one", T(IMAGE), 1),
    *_row("pixel_shuffle", "plain", T("b,8,3,3"), 2, over=_HALF),
    *_row("pixel_unshuffle", "plain", T("b,2,4,4"), 2),
    *_row("channel_shuffle", "plain", T(IMAGE), 2),
    *_row("unfold", "plain", T("b,2,6,6"), 3, padding=1, stride=2),
    *_row("fold", "plain", T("b,8,9"), (4, 4), (2, 2)),
    *_row("pad", "constant", T("b,4,8"), (1, 2), value=1.5, over=_HALF),
    *_row("pad", "reflect", T(IMAGE), (1, 2, 1, 0), mode="reflect"),
    *_row("pad", "replicate", T(IMAGE), (1, 2, 1, 0), mode="replicate"),
    *_row("pad", "circular", T("n,4,8,8"), (1, 2, 1, 0), mode="circular"),
    *_row("interpolate", "nearest", T(IMAGE), scale_factor=2, over=_HALF),
    *_row("interpolate", "nearest to a size", T(IMAGE), size=(5, 11)),
    *_row("interpolate", "nearest-exact", T(IMAGE), size=(5, 11), mode="nearest-exact"),
    *_row("interpolate", "linear", T("b,4,8"), size=11, mode="linear"),
    *_row("interpolate", "bilinear", T(IMAGE), scale_factor=1.5, mode="bilinear", over=_HALF),
    *_row(
        "interpolate",
        "bilinear, corners",
        T(IMAGE),
        size=(5, 11),
        mode="bilinear",
        align_corners=True,
    ),
    *_row("interpolate", "bicubic", T(IMAGE), size=(12, 11), mode="bicubic"),
    *_row(
        "interpolate",
        "bicubic, corners",
        T(IMAGE),
        size=(12, 11),
        mode="bicubic",
        align_corners=True,
    ),
    *_row("interpolate", "bicubic, factor", T(IMAGE), scale_factor=1.3, mode="bicubic"),
    *_row("interpolate", "trilinear", T("b,2,4,4,4"), scale_factor=2, mode="trilinear"),
    *_row("interpolate", "area", T(IMAGE), size=(4, 4), mode="area"),
    *_row(
        "interpolate", "bilinear, antialias", T(IMAGE), size=(5, 3), mode="bilinear", antialias=True
    ),
    *_row(
        "interpolate", "bicubic, antialias", T(IMAGE), size=(5, 3), mode="bicubic", antialias=True
    ),
    *_row(
        "interpolate",
        "bilinear, antialias, factor",
        T(IMAGE),
        scale_factor=0.7,
        mode="bilinear",
        antialias=True,
    ),
    *_row(
        "interpolate",
        "bicubic, antialias, factor",
        T(IMAGE),
        scale_factor=0.7,
        mode="bicubic",
        antialias=True,
    ),
    *_row("grid_sample", "plain", T("b,2,5,6"), T("b,3,4,2", -1, 1), align_corners=False),
    *_row(
        "affine_grid",
        "plain",
        T("b,2,3"),
        function=lambda x: F.affine_grid(x, [x.shape[0], 3, 4, 5], align_corners=False),
    ),
    *_row("embedding", "plain", T("i64:b,s", 0, 5), T("6,3"), over=_HALF),
    *_row("embedding_bag", "mean", T("i64:b,4", 0, 5), T("6,3")),
    *_row("embedding_bag", "max", T("i64:b,4", 0, 5), T("6,3"), mode="max"),
    *_row("one_hot", "plain", T("i64:b,4", 0, 5), 6, function=lambda i, n: F.one_hot(i, n).float()),
    *_row(
        "multi_head_attention",
        "module",
        T("n,t,8"),
        function=lambda x: _ATTENTION(x, x, x)[0],
    ),
    *_row("lstm", "module", T("n,5,4"), function=_recurrent(torch.nn.LSTM)),
    *_row(
        "lstm",
        "two ways, two layers",
        T("n,5,4"),
        function=_recurrent(torch.nn.LSTM, bidirectional=True, num_layers=2),
    ),
    *_row("gru", "module", T("n,5,4"), function=_recurrent(torch.nn.GRU)),
    *_row("rnn", "module", T("n,5,4"), function=_recurrent(torch.nn.RNN)),
    *_row("dropout", "eval", T("b,5"), training=False),
    *_row("mse_loss", "plain", T("b,5"), T("b,5")),
    *_row("l1_loss", "plain", T("b,5"), T("b,5")),
    *_row("smooth_l1_loss", "plain", T("b,5"), T("b,5")),
    *_row("huber_loss", "plain", T("b,5"), T("b,5")),
    *_row("kl_div", "plain", T("b,5", -2, -1), T("b,5", 0.1, 1), reduction="sum"),
    *_row("cross_entropy", "plain", T("b,5"), T("i64:b", 0, 4)),
    *_row("nll_loss", "plain", T("b,5"), T("i64:b", 0, 4)),
    *_row("binary_cross_entropy", "plain", T("b,5", 0.1, 0.9), T("b,5", 0, 1)),
    *_row("binary_cross_entropy_with_logits", "plain", T("b,5"), T("b,5", 0, 1)),
    *_row(
        "rotary",
        "half",
        T("b,2,s,8"),
        T("s,4"),
        T("s,4"),
        over=_HALF,
        function=lambda x, c, s: torch.cat(
            [x[..., :4] * c - x[..., 4:] * s, x[..., 4:] * c + x[..., :4] * s], -1
        ),
    ),
    *_row(
        "rotary",
        "interleaved",
        T("b,2,s,8"),
        T("s,4"),
        T("s,4"),
        function=lambda x, c, s: torch.stack(
            [x[..., ::2] * c - x[..., 1::2] * s, x[..., 1::2] * c + x[..., ::2] * s], -1
        ).flatten(-2),
    ),
]
