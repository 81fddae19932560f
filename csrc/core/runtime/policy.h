// Policy: which engines may run a block, and what happens if none of them can.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/format/json.h"

namespace portrt {

// Rules for the choice of an engine; a field that is not set defers to the next policy. See
// `portrt.runtime.policy` for what each means.
struct Policy {
  std::optional<std::string> fallback;              // "eager", "error" or "inductor"
  std::optional<std::vector<std::string>> engines;  // that may run; empty allows none
  std::optional<std::string> rebuild;               // "never" or "missing"
  std::optional<std::vector<std::string>> trust;    // "host-code", "pickle"
  std::optional<int64_t> cuda_graphs;               // that an engine may keep; 0 for none
  std::optional<std::string> check;                 // "first-open" or "off"
  std::optional<std::string> select;                // "first" or "measured"
  std::optional<bool> background;

  // This policy with its unset fields taken from `other`.
  Policy over(const Policy& other) const;
  // Every value that is set is known, or Error (settings).
  void validate() const;
};

// A caller's policy as a JSON object; what is null or absent is not set, other keys are refused.
// Throws Error (settings).
Policy read_policy(const Json& fields);

// Returns the value of an environment variable, or none where it is not set.
using Environment = std::function<std::optional<std::string>(const char*)>;
std::optional<std::string> process_environment(const char* name);

// The policy in force, every field but `engines`, `trust` and `cuda_graphs` set: that of the call,
// then that of the manifest, then the environment, then the default.
//   stored: policy of the manifest; what a file may not grant, and values that are not known, are
//       ignored
// Throws Error (settings): the environment has an unknown value, or the call's policy has one.
Policy effective_policy(const Json& stored, const Policy& call,
                        const Environment& environment = process_environment);

}  // namespace portrt
