// The dtypes that tensors of a program may have, by torch's names.
#pragma once

#include <cstdint>

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

}  // namespace portrt
