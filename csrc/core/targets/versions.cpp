#include "core/targets/versions.h"

#include <algorithm>

namespace portrt {

std::vector<long> version_numbers(std::string_view version) {
  constexpr size_t kMaxDigits = 9;
  std::vector<long> found;
  while (true) {
    const std::string_view part = version.substr(0, version.find('.'));
    long number = 0;
    size_t digits = 0;
    while (digits < part.size() && digits < kMaxDigits && part[digits] >= '0' &&
           part[digits] <= '9') {
      number = number * 10 + (part[digits++] - '0');
    }
    if (digits == 0) return found;
    found.push_back(number);
    if (digits != part.size() || part.size() == version.size()) return found;
    version.remove_prefix(part.size() + 1);
  }
}

bool same_release(std::string_view built, std::string_view found, size_t parts) {
  const std::vector<long> one = version_numbers(built), other = version_numbers(found);
  const size_t length = std::min({parts, one.size(), other.size()});
  return std::equal(one.begin(), one.begin() + static_cast<std::ptrdiff_t>(length), other.begin());
}

bool at_least(std::string_view oldest, std::string_view found) {
  const std::vector<long> given = version_numbers(found);
  std::vector<long> wanted = version_numbers(oldest);
  wanted.resize(std::min(wanted.size(), given.size()));
  return given >= wanted;
}

}  // namespace portrt
