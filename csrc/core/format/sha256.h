// SHA-256 (FIPS 180-4).
#pragma once

#include <cstdint>
#include <string>

namespace portrt {

// In 64 hexadecimal digits.
std::string sha256(const void* data, uint64_t size);

}  // namespace portrt
