// External data of an ONNX model, found in its bytes: no protobuf library.
//
// ONNX Runtime reads the file that a tensor names, from any folder and even from an address in
// memory, and the tensor may be anywhere in the model: a weight, an attribute, a branch, a function.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace portrt {

// Why an engine's model is refused, or an empty text.
//   data, size: the bytes of a ModelProto
//   weights: names of the weights that the engine takes from the weights image
std::string external_fault(const uint8_t* data, uint64_t size,
                           const std::vector<std::string>& weights);

}  // namespace portrt
