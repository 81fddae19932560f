// Registry of backends: what runs their engines, and in which versions.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace portrt {

// Required relation between the version of a library that runs an engine and the one that built it.
enum class VersionRule {
  exact,         // every number that both versions have is equal
  same_release,  // the first three numbers are equal
  at_least,      // the required version or newer
  tensorrt,      // the rules in core/targets/tensorrt_rules.h
};

struct BackendInfo {
  std::string name;
  // Libraries, any of which runs its engines, in order of preference; the first is also the key of
  // the version in an engine's `requires`.
  std::vector<std::string> libraries;
  VersionRule version_rule = VersionRule::at_least;
  std::string install;  // command that installs the library
};

// Libraries that run TensorRT engines, in order of preference.
const std::vector<std::string>& tensorrt_runtimes();

// All backends in the default order of preference.
const std::vector<BackendInfo>& known_backends();
// The row of a backend, or null.
const BackendInfo* find_backend(std::string_view name);

}  // namespace portrt
