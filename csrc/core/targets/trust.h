// Permissions that an engine or a file may need.
#pragma once

namespace portrt {

constexpr const char* kHostCode = "host-code";
constexpr const char* kPickle = "pickle";

}  // namespace portrt
