"""Builder of AOTInductor engines: machine code over the shared weights, without ONNX."""

from __future__ import annotations

import hashlib
import platform
import sys
import time
from pathlib import Path
from typing import Any

import torch

from portrt.cache.location import inductor_folder
from portrt.compiler.backends.base import BuilderInput, BuildInput
from portrt.compiler.backends.inductor.cxx import compiler_verdict
from portrt.compiler.backends.inductor.options import InductorOptions
from portrt.compiler.backends.inductor.process import Refusal, compile_in_process
from portrt.compiler.backends.onnxruntime.limits import divides_integers
from portrt.compiler.options.settings import Settings
from portrt.compiler.package.assemble import archive_of
from portrt.compiler.plan import Block, Engine
from portrt.engines.inductor.first_load import mark_loaded
from portrt.errors import BuildError
from portrt.format.temp_file import temporary_folder
from portrt.graphs import nested
from portrt.runtime.random_inputs import random_block_inputs
from portrt.targets.cpu_features import cpu_features
from portrt.targets.this_machine import arch_name
from portrt.verdict import YES, Verdict

# Operators that torch alone defines; others have kernels that a package cannot contain.
_NAMESPACES = frozenset({"aten", "prims", "prim", "quantized_decomposed"})
_RELEASE_PARTS = 3


class InductorBuilder:
    """Builds where a C++ compiler is, for CPUs like this one, or for GPUs like this one."""

    name = "inductor"
    input: BuilderInput = "program"

    def can_build(self, settings: Settings | None = None) -> Verdict:  # noqa: ARG002
        if sys.platform != "linux":
            reason = f"engines are built on Linux alone, and this is {sys.platform}"
            return Verdict.no("wrong_platform", reason, "build on Linux")
        found = compiler_verdict()
        return Verdict.yes(f"torch {torch.__version__}, {found.reason}") if found else found

    def supports(self, node: torch.fx.Node) -> Verdict:
        target = node.target
        if isinstance(target, torch._ops.OpOverload) and target.namespace not in _NAMESPACES:
            return Verdict.no(
                "unsupported_operator",
                f"{self.name} has no operators of other libraries, such as {target}",
                f"write it with torch's operators, or leave {self.name} out of engines",
            )
        if divides_integers(node):
            return Verdict.no(
                "wrong_results",
                f"an integer division by zero would end the process in {self.name} engines",
                "divide by a number, or divide floating-point numbers",
            )
        return YES

    def build(self, build_input: BuildInput, settings: Settings) -> Engine:
        started = time.perf_counter()
        block, options = build_input.block, settings.of(InductorOptions)
        device = block.device
        constants = [f"w{index}" for index in range(len(block.weights))]
        what = f"{self.name} for {block.name}"
        with temporary_folder("portrt-build-") as workdir:
            cache = inductor_folder(settings.cache_dir) or workdir / "inductor"
            job = _job(build_input, options, device, constants, workdir)
            try:
                result = compile_in_process(
                    job, workdir, cache, what=what, timeout_s=settings.build_timeout_s
                )
            except Refusal as err:
                raise _with_nodes(err, block) from err
            data = (workdir / "package.pt2").read_bytes()
        mark_loaded(hashlib.sha256(data).hexdigest())  # the child process has
        own = set() if options.freezing else set(result["constants"])
        taken = [name for name in constants if name in own]
        return Engine(
            backend=self.name,
            data=data,
            build={
                "library": "torch",
                "version": str(torch.__version__),
                "compiler": compiler_verdict().reason,
                "flags": [name for name in ("max_autotune", "freezing") if getattr(options, name)],
                "constants": taken,
                "os": platform.system().lower(),
                "arch": arch_name(platform.machine()),
                "seconds": round(time.perf_counter() - started, 3),
            },
            requires=_requires(device),
            weights=tuple(block.weights[constants.index(name)] for name in taken),
        )


def _job(
    build_input: BuildInput,
    options: InductorOptions,
    device: torch.device,
    constants: list[str],
    workdir: Path,
) -> dict[str, Any]:
    """Write the files of a job, and return it."""
    block = build_input.block
    (workdir / "source.pt2").write_bytes(archive_of(block.program))
    image = None
    if block.weights:
        image = str(workdir / "weights.safetensors")
        build_input.image.numpy().tofile(image)
    examples = random_block_inputs(block.signature, 0)
    return {
        "source": str(workdir / "source.pt2"),
        "image": image,
        "weights": list(block.weights),
        "constants": constants,
        "shapes": [list(example.shape) for example in examples],
        "dtypes": [spec.dtype for spec in block.inputs],
        "device": str(device),
        "config": {
            "aot_inductor.package_constants_in_so": options.freezing,
            # Small ones too: else they are numbers in the code.
            "always_keep_tensor_constants": True,
            "freezing": options.freezing,
            "max_autotune": options.max_autotune,
            # Intermediate results are rounded as PyTorch rounds them.
            "emulate_precision_casts": True,
            # It would make x * 0 to 0, also where x is NaN or infinite.
            "joint_graph_constant_folding": False,
            # Else the number of threads here is compiled in.
            "cpp.dynamic_threads": True,
            "cpp.enable_unsafe_math_opt_flag": False,
            "cpp.enable_floating_point_contract_flag": "off",
        },
    }


def _requires(device: torch.device) -> dict[str, Any]:
    release = str(torch.__version__).partition("+")[0].split(".")[:_RELEASE_PARTS]
    found: dict[str, Any] = {
        "device": [device.type],
        "os": [platform.system().lower()],
        "arch": [arch_name(platform.machine())],
        "torch": ".".join(release),
        "host_code": True,
    }
    features = cpu_features()
    if features:
        found["cpu_features"] = sorted(features)
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        found["compute_capabilities"] = [f"{major}.{minor}"]
    return found


def _with_nodes(refusal: Refusal, block: Block) -> BuildError:
    """Name the nodes of the operators that a refusal names, as other builders do."""
    nodes = [
        node.name
        for node in nested.all_nodes(block.program.graph_module)
        if str(node.target) in refusal.targets
    ]
    named = f", in {', '.join(f'node_{name}' for name in nodes)}" if nodes else ""
    return BuildError(f"{refusal.happened}{named}", refusal.expected, refusal.remedy)
