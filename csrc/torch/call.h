// One call of a block with torch's tensors.
#pragma once

#include <vector>

#include "runtime/block.h"
#include "torch/handles.h"

namespace portrt::torch_abi {

// Run a block; the outputs are new tensors, which torch allocates. Of inputs that are not contiguous
// copies are made.
std::vector<Tensor> call(Block& block, std::vector<Tensor> inputs);

}  // namespace portrt::torch_abi
