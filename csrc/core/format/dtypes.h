// The dtypes that tensors of a block may have, by torch's names.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace portrt {

enum class DType : uint8_t {
  boolean,
  uint8,
  int8,
  int16,
  int32,
  int64,
  uint16,
  uint32,
  uint64,
  float16,
  bfloat16,
  float32,
  float64,
  float8_e4m3fn,
  float8_e5m2,
  complex64,
  complex128,
  other,  // of a tensor that no block takes
};

// torch's name without "torch."; "another dtype" for `other`.
const char* dtype_name(DType dtype);
std::optional<DType> dtype_named(std::string_view name);
// Bytes of an element; 0 for `other`.
size_t item_size(DType dtype);
// All names, for messages.
std::string dtype_names();

}  // namespace portrt
