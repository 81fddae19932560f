// A session: an opened engine that runs a block.
#pragma once

#include <cstdint>
#include <vector>

#include "core/format/dtypes.h"
#include "core/runtime/input_check.h"

namespace portrt {

// A contiguous tensor, which the caller keeps.
struct TensorView {
  InputInfo info;
  const void* data = nullptr;  // of a tensor without elements anything
};

// Gives memory for the outputs of a call; each output is asked for once, in any order.
class Outputs {
 public:
  virtual ~Outputs() = default;
  // Memory for a contiguous output; of one without elements anything.
  virtual void* make(size_t index, DType dtype, const std::vector<int64_t>& sizes) = 0;
};

class Session {
 public:
  virtual ~Session() = default;
  // Run once; several threads may do so at the same time.
  //   inputs: as `check_inputs` accepted them
  //   shapes: of the outputs, with kUnknownSize where the session determines the size
  // Throws Error (engine, out_of_profile).
  virtual void run(const std::vector<TensorView>& inputs,
                   const std::vector<std::vector<int64_t>>& shapes, Outputs& outputs) = 0;
};

}  // namespace portrt
