// Lists of names in messages.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

namespace portrt {

inline std::string joined(const std::vector<std::string>& names, const std::string& separator) {
  std::string found;
  for (const std::string& name : names) found += (found.empty() ? "" : separator) + name;
  return found;
}

inline bool contains(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace portrt
