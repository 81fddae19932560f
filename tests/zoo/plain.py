"""Models in plain torch."""

from __future__ import annotations

from typing import Any

import torch
from custom_ops import shifted_relu
from torch import nn
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops.while_loop import while_loop
from torch.nn import functional

from zoo.registry import Entry, ids, randn, zoo

SERIES = {"batch": (1, 2, 4), "length": (2, 9, 32)}
SERIES_AXES = {"x": {0: "batch", 1: "length"}}


def series(channels: int) -> Any:
    def inputs(batch: int, length: int) -> dict[str, Any]:
        return {"x": randn(batch, length, channels)}

    return inputs


def rows(columns: int) -> dict[str, Any]:
    """The arguments of an Entry whose model takes x of [batch, columns]."""
    return {
        "inputs": lambda batch: {"x": randn(batch, columns)},
        "dims": {"batch": (1, 3, 8)},
        "axes": {"x": {0: "batch"}},
    }


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.layers: Any = kind(8, 16, num_layers=2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(32, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(x)[0])


@zoo("plain", quick=True)
def lstm() -> Entry:
    return Entry(Recurrent(nn.LSTM), series(8), SERIES, SERIES_AXES)


@zoo("plain")
def gru() -> Entry:
    return Entry(Recurrent(nn.GRU), series(8), SERIES, SERIES_AXES)


class TemporalBlock(nn.Module):
    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.pad = 2 * dilation
        self.conv = nn.utils.parametrizations.weight_norm(
            nn.Conv1d(width, width, 3, dilation=dilation)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + functional.relu(self.conv(functional.pad(x, (self.pad, 0))))


@zoo("plain")
def temporal_convnet() -> Entry:
    model = nn.Sequential(
        nn.Conv1d(4, 16, 1), *(TemporalBlock(16, 2**i) for i in range(4)), nn.Conv1d(16, 3, 1)
    )
    dims = {"batch": (1, 2, 4), "length": (2, 20, 64)}
    return Entry(
        model,
        lambda batch, length: {"input": randn(batch, 4, length)},
        dims,
        {"input": {0: "batch", 2: "length"}},
    )


@zoo("plain")
def super_resolution() -> Entry:
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.PReLU(),
        nn.ConvTranspose2d(16, 16, 4, stride=2, padding=1),
        nn.PReLU(),
        nn.Conv2d(16, 12, 3, padding=1),
        nn.PixelShuffle(2),
    )
    sides = (4, 12, 24)
    return Entry(
        model,
        lambda batch, height, width: {"input": randn(batch, 3, height, width)},
        {"batch": (1, 2, 3), "height": sides, "width": sides},
        {"input": {0: "batch", 2: "height", 3: "width"}},
    )


class SpectrogramFrontEnd(nn.Module):
    """Log-mel features of raw sound, and a convolution over them."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(64))
        self.register_buffer("mel", torch.rand(33, 12))
        self.conv = nn.Conv1d(12, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        spectrum = torch.stft(x, 64, hop_length=16, window=self.window, return_complex=True)
        power = spectrum.abs().square().transpose(1, 2)
        return self.conv((power @ self.mel + 1e-5).log().transpose(1, 2))


@zoo("plain", quick=True)
def stft_front_end() -> Entry:
    return Entry(
        SpectrogramFrontEnd(),
        lambda batch, samples: {"x": randn(batch, samples)},
        {"batch": (1, 2, 4), "samples": (128, 400, 1600)},
        {"x": {0: "batch", 1: "samples"}},
    )


class GraphAttention(nn.Module):
    """One layer of graph attention over a list of edges; the softmax is over incoming edges."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(8, 16, bias=False)
        self.score = nn.Linear(32, 1)
        self.head = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        h = self.project(x)
        source, target = edges[0], edges[1]
        score = functional.leaky_relu(self.score(torch.cat([h[source], h[target]], 1)), 0.2)[:, 0]
        highest = torch.full((x.shape[0],), -1e9).scatter_reduce(0, target, score, "amax")
        weight = (score - highest[target]).exp()
        total = torch.zeros(x.shape[0]).scatter_add(0, target, weight)
        message = h[source] * (weight / (total[target] + 1e-9))[:, None]
        summed = torch.zeros_like(h).index_add(0, target, message)
        return self.head(functional.elu(summed))


@zoo("plain", quick=True)
def graph_attention() -> Entry:
    def inputs(nodes: int, edges: int) -> dict[str, Any]:
        return {"x": randn(nodes, 8), "edges": torch.randint(0, nodes, (2, edges))}

    dims = {"nodes": (2, 7, 20), "edges": (2, 15, 60)}
    return Entry(GraphAttention(), inputs, dims, {"x": {0: "nodes"}, "edges": {1: "edges"}})


class PointNet(nn.Module):
    """Features of the nearest neighbours, and the maximum over all points.

    Another compute_mode would give programs for up to 25 points, or for more.
    """

    def __init__(self) -> None:
        super().__init__()
        self.local = nn.Sequential(nn.Conv2d(6, 16, 1), nn.BatchNorm2d(16), nn.ReLU())
        self.lift = nn.Sequential(nn.Conv1d(16, 32, 1), nn.BatchNorm1d(32), nn.ReLU())
        self.head = nn.Linear(32, 5)

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        distance = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
        nearest = distance.topk(3, dim=-1, largest=False).indices
        batch = torch.arange(points.shape[0])[:, None, None]
        near = points[batch, nearest] - points[:, :, None]
        pair = torch.cat([points[:, :, None].expand_as(near), near], -1).permute(0, 3, 1, 2)
        return self.head(self.lift(self.local(pair).amax(-1)).amax(-1))


@zoo("plain")
def point_cloud() -> Entry:
    return Entry(
        PointNet(),
        lambda batch, points: {"points": randn(batch, points, 3)},
        {"batch": (1, 2, 4), "points": (4, 16, 40)},
        {"points": {0: "batch", 1: "points"}},
    )


class Tabular(nn.Module):
    """Numbers, and bags of categories of various lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(30, 8, mode="mean")
        self.fixed = nn.EmbeddingBag(20, 8, mode="sum")
        self.norm = nn.BatchNorm1d(5)
        self.mlp = nn.Sequential(nn.Linear(21, 16), nn.SELU(), nn.Linear(16, 2))

    def forward(
        self, numbers: torch.Tensor, bags: torch.Tensor, offsets: torch.Tensor, pairs: torch.Tensor
    ) -> torch.Tensor:
        parts = [self.norm(numbers), self.bag(bags, offsets), self.fixed(pairs)]
        return self.mlp(torch.cat(parts, 1))


@zoo("plain")
def tabular() -> Entry:
    def inputs(rows: int, items: int) -> dict[str, Any]:
        cuts = torch.sort(torch.randint(0, items, (rows - 1,))).values
        return {
            "numbers": randn(rows, 5),
            "bags": torch.randint(0, 30, (items,)),
            "offsets": torch.cat([torch.zeros(1, dtype=torch.int64), cuts]),
            "pairs": torch.randint(0, 20, (rows, 2)),
        }

    axes = {
        "numbers": {0: "rows"},
        "bags": {0: "items"},
        "offsets": {0: "rows"},
        "pairs": {0: "rows"},
    }
    return Entry(Tabular(), inputs, {"rows": (1, 4, 9), "items": (2, 12, 50)}, axes)


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(8, 8)
        self.one = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))
        self.other = nn.Linear(8, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.stem(x).tanh()
        y = torch.cond(y.sum() > 0, lambda t: self.one(t), lambda t: self.other(t).sigmoid(), (y,))
        return self.head(y).softmax(-1)


@zoo("plain", quick=True)
def cond() -> Entry:
    return Entry(Branches(), **rows(8))


class Equilibrium(nn.Module):
    """A layer whose output is a fixed point, iterated until it stands still."""

    def __init__(self) -> None:
        super().__init__()
        self.state, self.input, self.head = nn.Linear(16, 16), nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> Any:
        given = self.input(x)

        def goes_on(count: torch.Tensor, z: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
            return (count < 50) & (change > 1e-4)

        def improve(count: torch.Tensor, z: torch.Tensor, change: torch.Tensor) -> Any:
            new = torch.tanh(self.state(z) * 0.5 + given)
            return count + 1, new, (new - z).abs().max()

        start = torch.zeros((), dtype=torch.int64), torch.zeros_like(given), given.abs().max() + 1
        count, z, _ = while_loop(goes_on, improve, start)
        return self.head(z), count


@zoo("plain")
def equilibrium() -> Entry:
    return Entry(Equilibrium(), **rows(8))


class GreedyDecoder(nn.Module):
    """Token after token of a recurrent decoder, until each row has ended or the text is full."""

    LENGTH, END = 12, 1

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.cell = nn.Embedding(20, 16), nn.GRUCell(16, 16)
        self.head = nn.Linear(16, 20)

    def forward(self, context: torch.Tensor) -> Any:
        batch = context.shape[0]
        text = torch.zeros(batch, self.LENGTH, dtype=torch.int64)
        places = torch.arange(self.LENGTH)

        def goes_on(at: torch.Tensor, text: torch.Tensor, state: torch.Tensor, ended: Any) -> Any:
            return (at < self.LENGTH) & ~ended.all()

        def step(at: torch.Tensor, text: torch.Tensor, state: torch.Tensor, ended: Any) -> Any:
            last = (text * (places == at - 1)).sum(1)
            state = self.cell(self.embed(last), state)
            token = self.head(state).argmax(-1).masked_fill(ended, 0)
            return (
                at + 1,
                torch.where(places == at, token[:, None], text),
                state,
                ended | (token == self.END),
            )

        start = torch.zeros((), dtype=torch.int64), text, context.clone(), context[:, 0] > 9
        count, text, state, _ = while_loop(goes_on, step, start)
        return text, count, state


@zoo("plain")
def greedy_decoder() -> Entry:
    def inputs(batch: int) -> dict[str, Any]:
        return {"context": randn(batch, 16)}

    return Entry(GreedyDecoder(), inputs, {"batch": (1, 3, 8)}, {"context": {0: "batch"}})


class ScannedLstm(nn.Module):
    """A cell of the model's own, scanned over the sequence in both directions."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.ModuleList(nn.LSTMCell(8, 16) for _ in range(2))
        self.head = nn.Linear(32, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        zeros = torch.zeros(x.shape[0], 16)
        found = []
        for cell, reverse in zip(self.cells, (False, True), strict=True):

            def step(state: Any, row: torch.Tensor, cell: nn.Module = cell) -> Any:
                h, c = cell(row, state)
                return (h, c), h.clone()

            start = zeros, zeros.clone()
            found.append(scan(step, start, x, dim=1, reverse=reverse)[1])
        return self.head(torch.cat(found, -1))


@zoo("plain")
def scanned_lstm() -> Entry:
    return Entry(ScannedLstm(), series(8), SERIES, SERIES_AXES)


class CachedDecoderStep(nn.Module):
    """One token through two layers of attention over caches that are written in place."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(40, 16)
        self.qkv = nn.ModuleList(nn.Linear(16, 48) for _ in range(2))
        self.out = nn.ModuleList(nn.Linear(16, 16) for _ in range(2))
        for index in range(2):
            self.register_buffer(f"keys_{index}", torch.zeros(4, 2, 32, 8))
            self.register_buffer(f"values_{index}", torch.zeros(4, 2, 32, 8))

    def forward(self, token: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        batch = token.shape[0]
        x = self.embed(token)[:, None]
        seen = (torch.arange(32) <= position)[None]
        for index, (qkv, out) in enumerate(zip(self.qkv, self.out, strict=True)):
            q, k, v = qkv(x).view(batch, 1, 3, 2, 8).permute(2, 0, 3, 1, 4)
            keys, values = getattr(self, f"keys_{index}"), getattr(self, f"values_{index}")
            keys[:batch].index_copy_(2, position, k)
            values[:batch].index_copy_(2, position, v)
            y = functional.scaled_dot_product_attention(
                q, keys[:batch], values[:batch], attn_mask=seen
            )
            x = x + out(y.transpose(1, 2).reshape(batch, 1, 16))
        return x[:, 0] @ self.embed.weight.T


@zoo("plain", quick=True)
def static_cache_step() -> Entry:
    step = iter(range(32))

    def inputs(batch: int) -> dict[str, Any]:
        return {"token": ids(40, batch), "position": torch.tensor([next(step)])}

    axes = {"token": {0: "batch"}}
    return Entry(CachedDecoderStep(), inputs, {"batch": (1, 2, 4)}, axes)


@zoo("plain")
def llama_static_cache() -> Entry:
    """transformers' own module for a decoder step over a static cache."""
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.integrations.executorch import TorchExportableModuleWithStaticCache

    from zoo.text import DECODER

    model = LlamaForCausalLM(LlamaConfig(**{**DECODER, "use_cache": True}))
    model.generation_config.cache_implementation = "static"
    model.generation_config.cache_config = {"batch_size": 1, "max_cache_len": 32}
    step = iter(range(32))

    def inputs() -> dict[str, Any]:
        position = torch.tensor([next(step)])
        return {"input_ids": ids(64, 1, 1), "cache_position": position}

    return Entry(TorchExportableModuleWithStaticCache(model, 1, 32), inputs)


class CustomInTheMiddle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.LayerNorm(16), nn.Linear(16, 16))
        self.second = nn.Sequential(nn.Linear(16, 16), nn.SiLU(), nn.Linear(16, 4), nn.Softmax(-1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(shifted_relu(self.first(x).tanh(), 0.1).sigmoid())


@zoo("plain")
def custom_operator() -> Entry:
    reason = "an operator of the user's own, without a translation, is in the middle"
    return Entry(CustomInTheMiddle(), **rows(8), why_not_one=reason)


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(4, 6), nn.Linear(5, 6)

    def forward(self, tree: dict[str, Any], rest: tuple[Any, ...]) -> dict[str, Any]:
        a = self.left(tree["a"]) + self.right(tree["more"][0])
        b = a.softmax(-1) * rest[1]["scale"] - rest[0]
        return {"pair": (a, [b, b.sum(-1)]), "none": None, "deep": {"x": [(a * b).tanh()]}}


@zoo("plain")
def nested_structures() -> Entry:
    def inputs(batch: int) -> dict[str, Any]:
        return {
            "tree": {"a": randn(batch, 4), "more": [randn(batch, 5)]},
            "rest": (randn(6), {"scale": randn(batch, 1)}),
        }

    axes = {
        "tree": {"a": {0: "batch"}, "more": [{0: "batch"}]},
        "rest": (None, {"scale": {0: "batch"}}),
    }
    return Entry(Nested(), inputs, {"batch": (1, 3, 8)}, axes)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        self.mix = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0.0)
        self.head = nn.Linear(16, 50, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.mix(self.embed(x)))


@zoo("plain")
def tied_weights() -> Entry:
    return Entry(Tied(), lambda batch, length: {"x": ids(50, batch, length)}, SERIES, SERIES_AXES)


class RunningStatistics(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(8))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.net(x)
        self.calls += 1
        self.mean.mul_(0.9).add_(y.mean(0), alpha=0.1)
        return (y - self.mean) / self.calls


@zoo("plain", quick=True)
def mutated_buffer() -> Entry:
    return Entry(RunningStatistics(), **rows(8))


class Int8Linear(nn.Module):
    """Weights as int8 with a scale for each row, multiplied out at each call."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        weight = torch.randn(outputs, inputs)
        scale = weight.abs().amax(1, keepdim=True) / 127
        self.register_buffer("weight", (weight / scale).round().to(torch.int8))
        self.register_buffer("scale", scale)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, self.weight.float() * self.scale)


@zoo("plain", quick=True)
def int8_weights() -> Entry:
    return Entry(
        nn.Sequential(Int8Linear(32, 64), nn.ReLU(), Int8Linear(64, 8)),
        inputs=lambda batch: {"input": randn(batch, 32)},
        dims={"batch": (1, 3, 8)},
        axes={"input": {0: "batch"}},
    )
