// Permission for engines that carry host (CPU) code, which runs when they are opened. A file can
// state that its engine needs it, never grant it.
#pragma once

#include <string>

#include "core/format/engine_spec.h"
#include "core/runtime/policy.h"
#include "core/verdict.h"

namespace portrt {

// Permit host code of the engine with this digest, in this process, unless a policy forbids it.
void mark_trusted(const std::string& sha256);

// Whether host code of a stored engine, in all its parts, may run.
bool trusts_host_code(const EngineSpec& engine, const Policy& policy);

// Turn a yes into a no for an engine with host code that is not trusted.
Verdict host_code_verdict(const EngineSpec& engine, const Policy& policy, Verdict verdict);

}  // namespace portrt
