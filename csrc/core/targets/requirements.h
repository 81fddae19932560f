// Check of a stored engine's requirements against a machine.
#pragma once

#include <string>

#include "core/format/engine_spec.h"
#include "core/targets/machine.h"
#include "core/verdict.h"

namespace portrt {

Verdict unknown_backend();

// Whether an engine takes tensors of a device type, "cpu" or "cuda".
Verdict device_verdict(const Requirements& requires_, const std::string& device);

// Whether an engine can run on a machine, on tensors of a device type. Trust is not judged here.
Verdict check_requirements(const std::string& backend, const Requirements& requires_,
                           const Machine& machine, const std::string& device);

}  // namespace portrt
