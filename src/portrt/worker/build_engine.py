"""Builds one TensorRT or TensorRT-RTX engine: `python build_engine.py JOB.json`.

Stands alone on purpose: it needs the TensorRT bindings and nothing else, so that it runs under the
Python, and in the container, that has the TensorRT of the deployment target. Python 3.8 syntax.

The job: {"module": "tensorrt_rtx", "onnx": PATH, "engine": PATH, "result": PATH,
"profiles": [{input: [min, opt, max]}], "optimization_level": int or null, "workspace_size": int,
"version_compatible": bool, "hardware_compatible": bool, "compute_capabilities": ["8.9"]}.
Writes the engine, and a result {"version", "flags", "seconds", "layers", "os", "arch", "python"},
or {"error", "details", "missing"}, where missing says that the bindings cannot be imported.
"""

import importlib
import json
import os
import platform
import sys
import time


def main(path):
    with open(path, encoding="utf-8") as file:
        job = json.load(file)
    started = time.time()
    try:
        result = build(job)
        result["seconds"] = round(time.time() - started, 3)
    except Refused as err:
        result = {"error": str(err), "details": err.details, "missing": err.missing}
    partial = job["result"] + ".part"
    with open(partial, "w", encoding="utf-8") as file:
        json.dump(result, file)
    os.replace(partial, job["result"])
    return 1 if "error" in result else 0


class Refused(Exception):  # noqa: N818  (it reads as what the builder did)
    """The builder said no; `details` are its own words."""

    def __init__(self, message, details=(), missing=False):
        super().__init__(message)
        self.details = list(details)
        self.missing = missing


def build(job):
    try:
        trt = importlib.import_module(job["module"])
    except Exception as err:
        reason = "%s: %s" % (type(err).__name__, err)
        raise Refused(
            "%s cannot be imported by %s" % (job["module"], sys.executable), [reason], missing=True
        ) from err
    logger = make_logger(trt)
    builder = trt.Builder(logger)
    flags = []
    network = builder.create_network(network_flags(trt, flags))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(job["onnx"]):
        errors = [str(parser.get_error(index)) for index in range(parser.num_errors)]
        raise Refused("the ONNX parser refuses the model", errors + logger.errors)
    config = configure(trt, builder, job, flags)
    for sizes in job["profiles"]:
        if config.add_optimization_profile(make_profile(builder, network, sizes)) < 0:
            raise Refused("the builder refuses the profile %s" % sizes, logger.errors)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise Refused("the builder made no engine", logger.errors)
    partial = job["engine"] + ".part"
    with open(partial, "wb") as file:
        file.write(plan)
    os.replace(partial, job["engine"])
    return {
        "version": trt.__version__,
        "flags": flags,
        "layers": network.num_layers,
        "os": platform.system().lower(),
        "arch": platform.machine(),
        "python": platform.python_version(),
    }


def make_logger(trt):
    class Logger(trt.ILogger):
        def __init__(self):
            trt.ILogger.__init__(self)
            self.errors = []

        def log(self, severity, message):
            if severity <= trt.ILogger.Severity.ERROR:
                self.errors.append(message)
            if severity <= trt.ILogger.Severity.INFO:
                sys.stderr.write("[%s] %s\n" % (str(severity).rpartition(".")[2], message))
                sys.stderr.flush()

    return Logger()


def network_flags(trt, flags):
    """Strongly typed where it exists: the model's dtypes decide the precision."""
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
    if job["version_compatible"]:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
        flags.append("version_compatible")
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
                    ["this builder knows " + ", ".join(have)],
                )
            if not config.set_compute_capability(known[name], index):
                raise Refused("the builder refuses compute capability %s" % capability)
        flags.append("compute_capabilities")
    return config


def make_profile(builder, network, sizes):
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        least, best, most = sizes[tensor.name]
        if tensor.is_shape_tensor:
            raise Refused("input %s is a shape tensor" % tensor.name)
        profile.set_shape(tensor.name, least, best, most)
    return profile


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
