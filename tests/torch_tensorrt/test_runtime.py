"""Context managers of `runtime`, levels of `logging`, and `Debugger`."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

import portrt.torch_tensorrt as torch_tensorrt
from portrt.errors import SettingsError
from portrt.runtime.policy import CONTEXT, ENV_CUDA_GRAPHS
from portrt.torch_tensorrt import NoEffectWarning, runtime

MODULE = torch.nn.Linear(2, 2)


def test_cuda_graphs_in_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENV_CUDA_GRAPHS, raising=False)
    assert not runtime.get_cudagraphs_mode()
    with runtime.enable_cudagraphs(MODULE) as module:
        assert module is MODULE
        assert runtime.get_cudagraphs_mode()
        policy = CONTEXT.get()
        assert policy is not None
        assert policy.cuda_graphs == 8
    assert CONTEXT.get() is None
    assert not runtime.get_whole_cudagraphs_mode()


def test_cuda_graphs_in_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENV_CUDA_GRAPHS, "0")
    for mode in (True, False):
        torch_tensorrt.set_cudagraphs_mode(mode)
        found: list[bool] = []
        thread = threading.Thread(
            target=lambda seen=found: seen.append(runtime.get_cudagraphs_mode())
        )
        thread.start()
        thread.join()
        assert found == [mode]
    assert os.environ[ENV_CUDA_GRAPHS] == "0"


@pytest.mark.parametrize(
    "context",
    [
        lambda: runtime.set_multi_device_safe_mode(True),
        lambda: runtime.enable_output_allocator(MODULE),
        lambda: runtime.optimization_profile(MODULE, "auto"),
        lambda: runtime.optimization_profile(MODULE),
        lambda: runtime.runtime_config(MODULE),
        lambda: runtime.runtime_config([MODULE, MODULE], cuda_graph_strategy="whole_graph_capture"),
        lambda: runtime.set_dynamic_shapes_kernel_strategy(MODULE, "lazy"),
    ],
)
def test_what_is_always_so_is_silent(context: Any) -> None:
    with context():
        pass


@pytest.mark.parametrize(
    ("context", "text"),
    [
        (lambda: runtime.enable_pre_allocated_outputs(MODULE), "at each call"),
        (lambda: runtime.weight_streaming(MODULE), "GPU memory"),
        (lambda: runtime.optimization_profile(MODULE, 1), "the profile that has its sizes"),
        (lambda: runtime.optimization_profile(MODULE, 0), "the profile that has its sizes"),
        (lambda: runtime.runtime_cache(MODULE, "a"), "nothing is written"),
        (lambda: runtime.set_dynamic_shapes_kernel_strategy(MODULE, "eager"), "anew"),
    ],
)
def test_what_has_no_effect_gives_one_warning(context: Any, text: str) -> None:
    with pytest.warns(NoEffectWarning, match=text) as record, context():
        pass
    assert len(record) == 1
    assert record[0].filename == __file__


def test_the_module_is_what_with_gives() -> None:
    with runtime.optimization_profile(MODULE, "auto") as one:
        assert one is MODULE
    with runtime.runtime_config([MODULE]) as several:
        assert several == (MODULE,)
    with pytest.warns(NoEffectWarning), runtime.weight_streaming(MODULE) as context:
        context.device_budget = 1 << 20
        assert context.device_budget == 1 << 20
        assert context.total_device_budget == context.get_automatic_weight_streaming_budget() == 0
    assert runtime.RuntimeSettings().merge(cuda_graph_strategy="a").cuda_graph_strategy == "a"


@pytest.mark.parametrize(
    ("name", "level"),
    [
        *(("internal_errors", logging.CRITICAL), ("errors", logging.ERROR)),
        *(("warnings", logging.WARNING), ("info", logging.INFO)),
        *(("debug", logging.DEBUG), ("graphs", logging.DEBUG)),
    ],
)
def test_levels(name: str, level: int) -> None:
    logger = logging.getLogger("portrt")
    before, handlers = logger.level, list(logger.handlers)
    with contextlib.suppress(KeyError), getattr(torch_tensorrt.logging, name)():
        assert logger.level == level
        raise KeyError
    assert (logger.level, logger.handlers) == (before, handlers)
    torch_tensorrt.logging.set_level(level, logging.getLogger("portrt.nothing"))
    assert logging.getLogger("portrt.nothing").level == level


def test_a_debugger_writes_a_log(tmp_path: Path) -> None:
    logger, folder = logging.getLogger("portrt"), tmp_path / "logs"
    before = logger.level
    with torch_tensorrt.dynamo.Debugger("info", logging_dir=folder):
        logging.getLogger("portrt.compiler").info("seen")
        logging.getLogger("portrt.compiler").debug("unseen")
    logging.getLogger("portrt.compiler").error("later")
    text = (folder / "portrt.log").read_text()
    assert [word in text for word in (": seen", "unseen", "later")] == [True, False, False]
    assert logger.level == before
    with pytest.raises(SettingsError, match="log_level is 'loud'"):
        torch_tensorrt.dynamo.Debugger("loud")


@pytest.mark.parametrize(
    "name",
    ["capture_fx_graph_before", "capture_fx_graph_after", "save_engine_profile", "save_layer_info"],
)
def test_a_debugger_warns_of_what_it_lacks(name: str) -> None:
    with pytest.warns(NoEffectWarning, match=name) as record:
        torch_tensorrt.dynamo.Debugger(**{name: ["a"]})
    assert len(record) == 1
