// Signature of a block: names, dtypes and shapes of inputs and outputs.
#pragma once

#include <string>
#include <vector>

#include "core/format/dimensions.h"
#include "core/format/dtypes.h"

namespace portrt {

struct InputSpec {
  std::string name;
  DType dtype = DType::other;
  std::vector<Size> shape;
};

struct OutputSpec {
  std::string name;
  DType dtype = DType::other;
  std::vector<Size> shape;
};

struct Signature {
  std::string name;  // of the block
  std::vector<InputSpec> inputs;
  std::vector<OutputSpec> outputs;
};

}  // namespace portrt
