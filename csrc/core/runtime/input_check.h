// Checks of a call's inputs against the block's signature, and shapes of the outputs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/format/signature.h"

namespace portrt {

constexpr int64_t kUnknownSize = -1;  // of a data-dependent size, for a session

// What is known of an input before the call; the caller keeps the sizes.
struct InputInfo {
  DType dtype = DType::other;
  Shape shape;
  std::string device;  // such as "cpu" or "cuda:0"
};

// The inputs match the signature, or Error (input), with the same facts as Python's.
void check_inputs(const Signature& signature, const std::vector<InputInfo>& inputs);

// Shapes of the outputs for inputs that `check_inputs` accepted; -1 for data-dependent sizes.
// Throws Error (input): a size would be negative, or cannot be computed.
std::vector<std::vector<int64_t>> output_shapes(const Signature& signature,
                                                const std::vector<InputInfo>& inputs);

// Whether one of these expressions is 0 in this call, or cannot be computed: its engine must not
// run then.
bool has_zero_size(const std::vector<SizeExpr>& nonzero_sizes,
                   const std::vector<InputInfo>& inputs);

}  // namespace portrt
