// Choice of what runs a block, from verdicts and the policy alone. Opens nothing.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "core/format/engine_spec.h"
#include "core/runtime/policy.h"
#include "core/verdict.h"

namespace portrt {

enum class ChoiceKind {
  engine,    // a stored engine
  rebuild,   // an engine built from the source
  compiled,  // the same, as the fallback
  eager,     // the source in PyTorch
  error,
};
const char* choice_name(ChoiceKind kind);

struct Choice {
  ChoiceKind kind = ChoiceKind::error;
  std::string name;  // backend of the engine, "eager", or "" for an error
  Verdict verdict;   // for an error the reason why the source may not run either
};

// The first no of policy, device, machine and trust for a stored engine, or yes.
//   on_machine: whether the backend exists and this machine accepts the engine; not called if the
//       policy or the device rejects it
Verdict engine_verdict(const EngineSpec& engine, const Policy& policy, const std::string& device,
                       const std::function<Verdict()>& on_machine);

// Whether PyTorch may run the source of a block.
Verdict source_verdict(bool has_source, const Policy& policy);

// Choose what runs a block whose engines have these verdicts.
//   engines: (backend, verdict) of each stored engine, in order of preference
//   builders: the backends that could build an engine here; called only if one would be used
//   compiles: whether sources can be compiled here; called only if one would be
Choice choose(const std::vector<std::pair<std::string, Verdict>>& engines, const Policy& policy,
              bool has_source, const std::function<std::vector<std::string>()>& builders = nullptr,
              const std::function<bool()>& compiles = nullptr);

}  // namespace portrt
