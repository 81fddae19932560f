"""Builds one TensorRT or TensorRT-RTX engine: `python build_engine.py JOB.json`.

Needs only the TensorRT bindings and the standard library, so that it runs under the Python, and in
the container, that has the TensorRT of the deployment target. Python 3.8 syntax.

The job: {"module": "tensorrt_rtx", "onnx": PATH, "engine": PATH, "result": PATH,
"profiles": [{input: [min, opt, max]}], "optimization_level": int or null, "workspace_size": int,
"version_compatible": bool, "hardware_compatible": bool, "compute_capabilities": ["8.9"]}, and
optionally "disable_tf32": bool, "sparse_weights": bool, "config": {attribute: number or name},
"plugins": [PATH], "exclude_lean_runtime": bool, "timing_cache": FOLDER, "progress": PATH,
"shape_inputs": names of inputs for which the profiles have values instead of shapes,
"strip_weights": names of initializers to leave out of the engine.
Writes the engine, and a result {"version", "flags", "seconds", "layers", "os", "arch", "python",
"warnings", "stripped": names of the weights that were left out}, with "driver" and "driver_cuda" if
there is an NVIDIA driver, or {"error", "details", "missing", "stage", "nodes", "operators"}:
missing is true if the bindings cannot be imported, nodes are indices of the ONNX nodes that the
parser refuses, operators the types of nodes that it refuses without an index. Appends a line of
JSON to "progress" for each step of the builder: {"phase", "step", "steps"}.
"""

import ctypes
import importlib
import json
import os
import platform
import sys
import time

MAX_WARNINGS = 20


def main(path):
    with open(path, encoding="utf-8") as file:
        job = json.load(file)
    started = time.time()
    try:
        result = build(job)
        result["seconds"] = round(time.time() - started, 3)
    except Refused as err:
        result = {
            "error": str(err),
            "details": err.details,
            "missing": err.missing,
            "stage": err.stage,
            "nodes": err.nodes,
            "operators": err.operators,
        }
    partial = job["result"] + ".part"
    with open(partial, "w", encoding="utf-8") as file:
        json.dump(result, file)
    os.replace(partial, job["result"])
    return 1 if "error" in result else 0


class Refused(Exception):  # noqa: N818  (it reads as what the builder did)
    """The builder failed; `details` are its messages."""

    def __init__(self, message, details=(), missing=False, stage="build", nodes=(), operators=()):
        super().__init__(message)
        self.details = list(details)
        self.missing = missing
        self.stage = stage
        self.nodes = list(nodes)
        self.operators = list(operators)


def build(job):
    try:
        trt = importlib.import_module(job["module"])
    except Exception as err:
        reason = "%s: %s" % (type(err).__name__, err)
        raise Refused(
            "%s cannot be imported by %s" % (job["module"], sys.executable), [reason], missing=True
        ) from err
    logger = make_logger(trt)
    load_plugins(trt, job, logger)
    builder = trt.Builder(logger)
    flags = []
    network = builder.create_network(network_flags(trt, flags))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(job["onnx"]):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        raise Refused(
            "the ONNX parser refuses the model",
            [str(error) for error in errors] + logger.errors,
            stage="parse",
            nodes=[error.node() for error in errors if error.node() >= 0],
            operators=[operator_of(error) for error in errors if error.node() < 0],
        )
    config = configure(trt, builder, job, flags)
    set_precisions(trt, network, config, flags)
    stripped = strip_weights(trt, network, config, job, flags)
    timing = timing_cache(trt, config, job)
    watch_progress(trt, config, job)
    for sizes in job["profiles"]:
        if (
            config.add_optimization_profile(
                make_profile(builder, network, sizes, job.get("shape_inputs", ()))
            )
            < 0
        ):
            raise Refused("the builder refuses the profile %s" % sizes, logger.errors)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise Refused("the builder made no engine", logger.errors)
    write(job["engine"], plan)
    if timing:
        write(timing, config.get_timing_cache().serialize())
    result = driver_facts()
    result.update(
        {
            "version": trt.__version__,
            "flags": flags,
            "layers": network.num_layers,
            "os": platform.system().lower(),
            "arch": platform.machine(),
            "python": platform.python_version(),
            "warnings": logger.warnings[-MAX_WARNINGS:],
            "stripped": stripped,
        }
    )
    return result


def operator_of(error):
    """Return the operator type of a parser error without a node, from "importScatterND"."""
    name = error.func()
    return name[len("import") :] if name.startswith("import") else ""


def driver_facts():
    """Return the version of the NVIDIA driver and its newest CUDA; empty without a driver."""
    windows = platform.system() == "Windows"
    found = {}
    number = ctypes.c_int()
    try:
        cuda = ctypes.CDLL("nvcuda.dll" if windows else "libcuda.so.1")
        if cuda.cuDriverGetVersion(ctypes.byref(number)) == 0 and number.value:
            found["driver_cuda"] = "%d.%d" % (number.value // 1000, number.value % 1000 // 10)
    except (OSError, AttributeError):
        pass
    text = ctypes.create_string_buffer(96)
    try:
        management = ctypes.CDLL("nvml.dll" if windows else "libnvidia-ml.so.1")
        if management.nvmlInit_v2() == 0:
            if management.nvmlSystemGetDriverVersion(text, len(text)) == 0:
                found["driver"] = text.value.decode("ascii", "replace")
            management.nvmlShutdown()
    except (OSError, AttributeError):
        pass
    return found


def load_plugins(trt, job, logger):
    """Load the plugins that come with TensorRT, if this library has them, and the job's."""
    if hasattr(trt, "init_libnvinfer_plugins"):
        trt.init_libnvinfer_plugins(logger, "")
    for path in job.get("plugins", []):
        if trt.get_plugin_registry().load_library(path) is None:
            raise Refused("the plugins in %s cannot be loaded" % path, logger.errors)


def write(path, content):
    partial = "%s.%d.part" % (path, os.getpid())
    with open(partial, "wb") as file:
        file.write(content)
    os.replace(partial, path)


def make_logger(trt):
    class Logger(trt.ILogger):
        def __init__(self):
            trt.ILogger.__init__(self)
            self.errors = []
            self.warnings = []

        def log(self, severity, message):
            if severity <= trt.ILogger.Severity.ERROR:
                self.errors.append(message)
            elif severity == trt.ILogger.Severity.WARNING and message[:300] not in self.warnings:
                self.warnings.append(message[:300])
            if severity <= trt.ILogger.Severity.INFO:
                sys.stderr.write("[%s] %s\n" % (str(severity).rpartition(".")[2], message))
                sys.stderr.flush()

    return Logger()


def network_flags(trt, flags):
    """Return the creation flags: strongly typed if known, so that the model sets the precision."""
    known = trt.NetworkDefinitionCreationFlag.__members__
    bits = 0
    for name in ("STRONGLY_TYPED", "EXPLICIT_BATCH"):
        if name in known:
            bits |= 1 << int(known[name])
            flags.append(name.lower())
            break
    return bits


def configure(trt, builder, job, flags):
    config = builder.create_builder_config()
    if job["workspace_size"]:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, job["workspace_size"])
    if job["optimization_level"] is not None:
        config.builder_optimization_level = job["optimization_level"]
    set_config(trt, config, job, flags)
    if job["version_compatible"]:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
        flags.append("version_compatible")
        if job.get("exclude_lean_runtime"):
            config.set_flag(trt.BuilderFlag.EXCLUDE_LEAN_RUNTIME)
            flags.append("exclude_lean_runtime")
    preview = getattr(trt, "PreviewFeature", None)
    # TensorRT 8.6 lets one context use a profile unless this is set; 9 and later always share them.
    if hasattr(preview, "PROFILE_SHARING_0806"):
        config.set_preview_feature(preview.PROFILE_SHARING_0806, True)
    if hasattr(config, "profiling_verbosity"):  # the engine then keeps layer types for profiling
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if job["hardware_compatible"]:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
        flags.append("hardware_compatible")
    capabilities = job["compute_capabilities"]
    if capabilities:
        config.num_compute_capabilities = len(capabilities)
        known = trt.ComputeCapability.__members__
        for index, capability in enumerate(capabilities):
            name = "SM" + capability.replace(".", "")
            if name not in known:
                have = [item[2:-1] + "." + item[-1] for item in known if item.startswith("SM")]
                raise Refused(
                    "no engines for compute capability %s" % capability,
                    ["this builder supports " + ", ".join(have)],
                )
            if not config.set_compute_capability(known[name], index):
                raise Refused("the builder refuses compute capability %s" % capability)
        flags.append("compute_capabilities")
    return config


def set_config(trt, config, job, flags):
    """Set what the job names; a builder that lacks one of them refuses."""
    known = trt.BuilderFlag.__members__
    if job.get("disable_tf32") and "TF32" in known:  # one without it never uses TF32
        config.clear_flag(trt.BuilderFlag.TF32)
    if job.get("disable_tf32"):
        flags.append("no_tf32")
    if job.get("sparse_weights"):
        if "SPARSE_WEIGHTS" not in known:
            raise Refused("this builder has no sparse kernels", [job["module"] + trt.__version__])
        config.set_flag(trt.BuilderFlag.SPARSE_WEIGHTS)
        flags.append("sparse_weights")
    for name, value in sorted(job.get("config", {}).items()):
        if not hasattr(config, name):
            raise Refused(
                "this builder has no %s" % name,
                ["%s %s is too old for it" % (job["module"], trt.__version__)],
            )
        if isinstance(value, str):
            value = type(getattr(config, name)).__members__[value]
        setattr(config, name, value)
        flags.append("%s=%s" % (name, job["config"][name]))


def set_precisions(trt, network, config, flags):
    """Allow the dtypes that the model has, if the network is not strongly typed."""
    if "strongly_typed" in flags:
        return
    found = set()
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        for port in range(layer.num_outputs):
            tensor = layer.get_output(port)
            if tensor is not None:
                found.add(tensor.dtype)
    for kind, flag in (("HALF", "FP16"), ("BF16", "BF16"), ("INT8", "INT8"), ("FP8", "FP8")):
        if getattr(trt.DataType, kind, None) in found:
            config.set_flag(getattr(trt.BuilderFlag, flag))
            flags.append(flag.lower())


def strip_weights(trt, network, config, job, flags):
    """Leave weights out of the plan, and return their names.

    Weights that the parser has replaced, such as by a transposed copy, stay in the plan.
    """
    names = job.get("strip_weights")
    if not names:
        return []
    known = trt.BuilderFlag.__members__
    if "STRIP_PLAN" not in known or "REFIT_INDIVIDUAL" not in known:
        raise Refused(
            "this builder cannot leave chosen weights out of an engine",
            ["%s %s is too old for it" % (job["module"], trt.__version__)],
        )
    stripped = [name for name in names if network.mark_weights_refittable(name)]
    if stripped:
        config.set_flag(trt.BuilderFlag.REFIT_INDIVIDUAL)
        config.set_flag(trt.BuilderFlag.STRIP_PLAN)
        flags.append("strip_plan")
    return stripped


def timing_cache(trt, config, job):
    """Use the timing cache of this library and GPU in a folder, and return its path, or None.

    A cache file that the library rejects is replaced by an empty one.
    """
    if not job.get("timing_cache") or not hasattr(config, "create_timing_cache"):
        return None
    name = "%s-%s-%s.timing" % (job["module"], trt.__version__, job.get("gpu", "any"))
    path = os.path.join(job["timing_cache"], name)
    old = b""
    if os.path.exists(path):
        with open(path, "rb") as file:
            old = file.read()
    for content in (old, b""):
        cache = config.create_timing_cache(content)
        if cache is not None and config.set_timing_cache(cache, False):
            return path
    return None


def watch_progress(trt, config, job):
    """Write each step of the builder to the progress file, if it has a monitor (TensorRT 10)."""
    if not job.get("progress") or not hasattr(trt, "IProgressMonitor"):
        return

    class Monitor(trt.IProgressMonitor):
        def __init__(self):
            trt.IProgressMonitor.__init__(self)
            self.steps = {}

        def phase_start(self, phase_name, parent_phase, num_steps):  # noqa: ARG002  (TensorRT's)
            self.steps[phase_name] = num_steps

        def step_complete(self, phase_name, step):
            line = {"phase": phase_name, "step": step + 1, "steps": self.steps.get(phase_name, 0)}
            with open(job["progress"], "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            return True

        def phase_finish(self, phase_name):
            self.steps.pop(phase_name, None)

    config.progress_monitor = Monitor()


def make_profile(builder, network, sizes, shape_inputs):
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        low, opt, high = sizes[tensor.name]
        if tensor.name in shape_inputs:
            profile.set_shape_input(tensor.name, low, opt, high)
        elif tensor.is_shape_tensor:
            raise Refused("input %s is a shape tensor" % tensor.name)
        else:
            profile.set_shape(tensor.name, low, opt, high)
    return profile


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
