"""Which control-flow operators stay in PyTorch, and what is said of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from custom_ops import shifted_relu
from torch import nn
from torch._higher_order_ops.while_loop import while_loop

import portrt
from portrt.compiler.convert import translation
from portrt.compiler.lower import lower
from portrt.compiler.options.settings import Settings
from portrt.compiler.partition import partition
from portrt.graphs.nested import all_nodes
from portrt.verdict import Verdict

X = torch.ones(3, 4)


def plan_of(model: type[nn.Module], excluded: Any = None, **options: Any) -> Any:
    program = torch.export.export(model(), (X,))
    settings = Settings.from_options({"min_block_size": 1, **options})
    return partition(lower(program), settings, translation, excluded)


def said_of(plan: Any, target: str) -> Any:
    (item,) = (item for item in plan.left_out if item.node == target)
    return item


class Branches(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x.tanh()
        return torch.cond(x.sum() > 0, lambda t: t.relu(), lambda t: t.sin() + 1, (y,)) * 2


class WithRandom(Branches):
    def forward(self, x: torch.Tensor) -> Any:
        return super().forward(x), torch.rand_like(x)


class CustomBranch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, lambda t: shifted_relu(t, 0.5), lambda t: t * 2, (x.tanh(),))


class NestedRandom(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        def inner(t: torch.Tensor) -> torch.Tensor:
            return torch.cond(t.sum() > 1, lambda u: torch.rand_like(u), lambda u: u + 1, (t,))

        return torch.cond(x.sum() > 0, inner, lambda t: t * 2, (x.tanh(),))


class CountsInPython(nn.Module):
    def forward(self, x: torch.Tensor) -> Any:
        return while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, y * 2), (0, x))


class SizesDiffer(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, lambda t: t[:2] * 1, lambda t: t * 2, (x.tanh(),))


def test_a_block_holds_the_branches_of_its_nodes() -> None:
    plan = plan_of(Branches)

    (block,) = plan.blocks
    assert plan.left_out == ()
    inside = [
        str(n.target) for n in all_nodes(block.program.graph_module) if n.op == "call_function"
    ]
    assert {"cond", "aten.relu.default", "aten.sin.default"} <= set(inside)
    assert block.node_count == 8
    names = [n.name for n in all_nodes(block.program.graph_module) if n.op == "call_function"]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("model", "target", "reason", "remedy"),
    [
        (
            CustomBranch,
            "cond",
            "portrt_tests.shifted_relu.default in its true_graph_0 (test_higher_order.py:",
            "translations",
        ),
        (NestedRandom, "cond", "cond in its true_graph_0", "as an input"),
        (NestedRandom, "cond", "aten.rand_like.default in its true_graph_0", "as an input"),
        (SizesDiffer, "cond", "depends on data", "torch.where"),
        (CountsInPython, "while_loop", "does not return tensors alone", ""),
    ],
)
def test_the_node_in_the_branch_is_named(
    model: type[nn.Module], target: str, reason: str, remedy: str
) -> None:
    item = said_of(plan_of(model), target)

    assert reason in item.reason
    assert remedy in item.remedy
    assert item.source.startswith("test_higher_order.py:")


@pytest.mark.parametrize(
    "name", ["higher_order.cond", torch.ops.higher_order.cond, "aten.sin", "aten.sin.default"]
)
def test_the_user_can_keep_it_in_pytorch(name: Any) -> None:
    plan = plan_of(Branches, torch_executed_ops={name})

    item = said_of(plan, "cond")
    assert "named in torch_executed_ops" in item.reason
    assert item.asked
    assert len(plan.blocks) == 4


def test_a_node_of_a_branch_that_was_refused_keeps_the_whole_call() -> None:
    plan = plan_of(
        Branches, excluded={"false_graph_0_sin": Verdict.no("build_failed", "it failed")}
    )

    reason = said_of(plan, "cond").reason
    assert reason.startswith("aten.sin.default in its false_graph_0 (test_higher_order.py:")
    assert reason.endswith("): it failed; the rest of its branches is in 2 blocks")
    assert [block.name for block in plan.blocks] == [
        "block_0",
        "true_graph_0_block_0",
        "false_graph_0_block_0",
        "block_1",
    ]


def test_min_block_size_counts_the_operators_of_branches() -> None:
    assert plan_of(CustomBranch, min_block_size=5).blocks == ()
    # tanh, sum, gt, cond and mul, and three in the Branches: with them the block is large enough
    plan = plan_of(WithRandom, min_block_size=8)
    assert len(plan.blocks) == 1


def test_the_file_says_why_it_stays(tmp_path: Any) -> None:
    model = CustomBranch()
    program = portrt.compile(
        model, inputs=[X], engines="onnxruntime", min_block_size=1, output_format="exported_program"
    )
    portrt.save(program, tmp_path / "model.pt2")
    report = portrt.inspect(tmp_path / "model.pt2").report

    (item,) = (item for item in report.fallbacks if item.operator == "cond")
    assert "shifted_relu" in item.reason
    assert "cond(x.sum() > 0" in item.source
    torch.testing.assert_close(program.module()(-X), model(-X))
