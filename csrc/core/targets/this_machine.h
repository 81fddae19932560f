// Properties of the machine that this process runs on, without a vendor library.
#pragma once

#include <istream>
#include <optional>
#include <set>
#include <string>

#include "core/targets/machine.h"

namespace portrt {

// OS, architecture, CPU features, GPU and driver. `versions` is empty and `lean_library` not set:
// the code that opens a library sets its entry, "" where it cannot be opened.
Machine this_machine();

// The instruction sets that every CPU of a text like /proc/cpuinfo has; none where it lists none.
std::optional<std::set<std::string>> cpu_features(std::istream& cpuinfo);

// A CPU's usual name: Windows reports AMD64, macOS arm64.
std::string arch_name(std::string machine);

}  // namespace portrt
