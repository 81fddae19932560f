#include "runtime/output_sizes.h"

#include <algorithm>

#include "core/error.h"

namespace portrt {
namespace {

std::string shape_text(const std::vector<int64_t>& sizes) {
  std::string found = "(";
  for (size_t axis = 0; axis < sizes.size(); ++axis) {
    found += (axis ? ", " : "") + std::to_string(sizes[axis]);
  }
  return found + (sizes.size() == 1 ? ",)" : ")");
}

Error contradiction(const Signature& signature, const std::string& fact, std::string wanted) {
  return Error(ErrorCode::engine,
               "the engine of " + signature.name +
                   " returned sizes that contradict its manifest: " + fact,
               std::move(wanted),
               "give data within the bounds that the model checks; or, for a prebuilt engine, "
               "declare outputs with the sizes that it returns");
}

}  // namespace

bool has_data_dependent_sizes(const Signature& signature) {
  return std::any_of(
      signature.outputs.begin(), signature.outputs.end(), [](const OutputSpec& spec) {
        return std::any_of(spec.shape.begin(), spec.shape.end(), [](const Size& size) {
          return std::holds_alternative<DataDependentSize>(size);
        });
      });
}

void* MeasuredOutputs::make(size_t index, DType dtype, const std::vector<int64_t>& sizes) {
  const OutputSpec& spec = signature_.outputs[index];
  const std::vector<int64_t>& wanted = shapes_[index];
  bool fits = sizes.size() == wanted.size();
  for (size_t axis = 0; fits && axis < sizes.size(); ++axis) {
    fits = wanted[axis] == kUnknownSize || wanted[axis] == sizes[axis];
  }
  if (!fits) {
    throw contradiction(signature_, "output '" + spec.name + "' has the shape " + shape_text(sizes),
                        shape_text(wanted));
  }
  for (size_t axis = 0; axis < sizes.size(); ++axis) {
    const auto* size = std::get_if<DataDependentSize>(&spec.shape[axis]);
    if (size == nullptr) continue;
    if (size->max && sizes[axis] > *size->max) {
      throw contradiction(signature_, size->symbol + " is " + std::to_string(sizes[axis]),
                          "at most " + std::to_string(*size->max));
    }
    const int64_t first = sizes_.emplace(size->symbol, sizes[axis]).first->second;
    if (first != sizes[axis]) {
      throw contradiction(signature_,
                          size->symbol + " is " + std::to_string(first) + " and " +
                              std::to_string(sizes[axis]),
                          "one size");
    }
  }
  return outputs_.make(index, dtype, sizes);
}

}  // namespace portrt
