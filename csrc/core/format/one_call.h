// Programs that are one engine call of all their inputs, which need no reader of torch.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "core/format/engine_calls.h"

namespace portrt {

struct OneCall {
  EngineCall call;
  std::vector<std::string> names;  // of the arguments, flat, in the order of the program
  std::vector<size_t> positions;   // of each engine input among the arguments
  std::vector<size_t> results;     // of each output, flat, among the engine's outputs
};

// Read such a program. What torch would check in a call must be in the block's signature.
// Throws Error (load) for any other: the node, argument or output that is in the way.
OneCall one_call(const Archive& archive, const Json& model);

}  // namespace portrt
