// Description of a machine; it may be incomplete.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <variant>

#include "core/verdict.h"

namespace portrt {

// A library's path or name, or a no with the reason.
using LibraryOrNo = std::variant<std::string, Verdict>;

// What is absent, or a library missing in `versions`, is not known and causes no rejection; a
// machine without a compute capability has no GPU.
struct Machine {
  std::optional<std::string> os;                  // "linux", "windows" or "darwin"
  std::optional<std::string> arch;                // "x86_64", "aarch64" and so on
  std::optional<std::string> compute_capability;  // such as "8.9"
  std::string gpu_reason = "there is no NVIDIA GPU";
  std::map<std::string, std::string> versions;  // library -> version; "" where it is not installed
  std::optional<std::string> cuda;              // newest that the GPU's driver supports
  // From a TensorRT version to the path of a lean runtime library of that release.
  std::function<LibraryOrNo(const std::string&)> lean_library;
  std::optional<std::set<std::string>> cpu_features;  // as Linux names them
};

}  // namespace portrt
