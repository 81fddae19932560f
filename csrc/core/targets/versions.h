// Library versions as lists of integers, compared up to the shorter one.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

namespace portrt {

// The leading integers: 1, 7, 1, 116 for "1.7.1.116", and 1, 32 for "1.32.dev5".
std::vector<long> version_numbers(std::string_view version);
// Whether the first `parts` numbers are equal, up to the shorter version.
bool same_release(std::string_view built, std::string_view found, size_t parts = 3);
// Whether `found` is `oldest` or newer, up to the length of `found`: 1.23 is not older than 1.23.2.
bool at_least(std::string_view oldest, std::string_view found);

}  // namespace portrt
