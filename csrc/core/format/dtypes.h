// The dtypes that tensors of a block may have, by torch's names.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "portrt/dtype.h"

namespace portrt {

// torch's name without "torch."; "another dtype" for `other`.
const char* dtype_name(DType dtype);
std::optional<DType> dtype_named(std::string_view name);
// Bytes of an element; 0 for `other`.
size_t item_size(DType dtype);
// All names, for messages.
std::string dtype_names();

}  // namespace portrt
