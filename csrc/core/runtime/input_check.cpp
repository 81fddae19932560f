#include "core/runtime/input_check.h"

#include <algorithm>

#include "core/error.h"
#include "core/text.h"

namespace portrt {
namespace {

// As Python writes a tuple.
template <class Sizes>
std::string shape_text(const Sizes& begin, size_t rank) {
  std::string found = "(";
  for (size_t axis = 0; axis < rank; ++axis) {
    found += (axis ? ", " : "") + std::to_string(begin[axis]);
  }
  return found + (rank == 1 ? ",)" : ")");
}

std::string shape_text(const Shape& shape) { return shape_text(shape.sizes, shape.rank); }

Error input_error(std::string happened, std::string expected, std::string remedy) {
  return Error(ErrorCode::input, std::move(happened), std::move(expected), std::move(remedy));
}

Error shape_error(const Signature& signature, const InputSpec& spec, const Shape& shape,
                  std::string wanted) {
  return input_error(
      "input '" + spec.name + "' of " + signature.name + " has shape " + shape_text(shape),
      std::move(wanted),
      "give a tensor within the shapes that the program was compiled for, or compile it again "
      "with a wider range");
}

Error dtype_error(const Signature& signature, const InputSpec& spec, DType found) {
  const std::string wanted = std::string("torch.") + dtype_name(spec.dtype);
  return input_error("input '" + spec.name + "' of " + signature.name + " is " +
                         (found == DType::other ? "" : "torch.") + dtype_name(found),
                     wanted + ", as the program was compiled",
                     "convert it: " + spec.name + ".to(" + wanted + ")");
}

Error device_error(const Signature& signature, const std::vector<InputInfo>& inputs) {
  std::vector<std::string> found;
  for (size_t index = 0; index < inputs.size(); ++index) {
    found.push_back("'" + signature.inputs[index].name + "' on " + inputs[index].device);
  }
  return input_error(
      "the inputs of " + signature.name + " are on several devices: " + joined(found, ", "),
      "all inputs on one device", "move them with .to(device)");
}

Error sizes_error(const Signature& signature, const std::vector<InputInfo>& inputs,
                  const std::string& fact) {
  std::vector<std::string> found;
  for (size_t index = 0; index < inputs.size(); ++index) {
    found.push_back(signature.inputs[index].name + " " + shape_text(inputs[index].shape));
  }
  return input_error(
      "with these inputs of " + signature.name + ", " + joined(found, ", ") + ", " + fact,
      "inputs large enough for every step of the model", "give larger inputs");
}

std::vector<Shape> shapes_of(const std::vector<InputInfo>& inputs) {
  std::vector<Shape> found;
  for (const InputInfo& input : inputs) found.push_back(input.shape);
  return found;
}

int64_t value_of(const SizeExpr& tree, const Signature& signature,
                 const std::vector<InputInfo>& inputs, const std::vector<Shape>& shapes) {
  try {
    return tree.evaluate(shapes);
  } catch (const ArithmeticError& error) {
    throw sizes_error(signature, inputs,
                      std::string("a size cannot be computed (") + error.what() + ")");
  }
}

// The expected size as text; "" where the size found is valid.
std::string refusal(const Signature& signature, const std::vector<InputInfo>& inputs,
                    const std::vector<Shape>& shapes, const Size& wanted, int64_t found) {
  if (const Dimension* range = std::get_if<Dimension>(&wanted)) {
    if (found >= range->min && (!range->max || found <= *range->max)) return "";
    return "a size from " + std::to_string(range->min) + " to " +
           (range->max ? std::to_string(*range->max) : "any size");
  }
  const SizeExpr* tree = std::get_if<SizeExpr>(&wanted);
  const int64_t exact =
      tree == nullptr ? std::get<int64_t>(wanted) : value_of(*tree, signature, inputs, shapes);
  return exact == found ? "" : std::to_string(exact);
}

}  // namespace

void check_inputs(const Signature& signature, const std::vector<InputInfo>& inputs) {
  const std::vector<InputSpec>& specs = signature.inputs;
  if (inputs.size() != specs.size()) {
    std::vector<std::string> names;
    for (const InputSpec& spec : specs) names.push_back(spec.name);
    throw input_error(signature.name + " was given " + std::to_string(inputs.size()) + " inputs",
                      std::to_string(specs.size()) + ": " + joined(names, ", "),
                      "call the program as it was exported");
  }
  for (size_t index = 0; index < specs.size(); ++index) {
    const InputInfo& input = inputs[index];
    if (input.dtype != specs[index].dtype) {
      throw dtype_error(signature, specs[index], input.dtype);
    }
    if (input.device != inputs[0].device) throw device_error(signature, inputs);
    if (input.shape.rank != specs[index].shape.size()) {
      throw shape_error(signature, specs[index], input.shape,
                        "rank " + std::to_string(specs[index].shape.size()));
    }
  }
  const std::vector<Shape> shapes = shapes_of(inputs);
  for (size_t index = 0; index < specs.size(); ++index) {
    for (size_t axis = 0; axis < specs[index].shape.size(); ++axis) {
      const std::string expected =
          refusal(signature, inputs, shapes, specs[index].shape[axis], shapes[index].sizes[axis]);
      if (expected.empty()) continue;
      throw shape_error(signature, specs[index], shapes[index],
                        expected + " in dimension " + std::to_string(axis));
    }
  }
}

std::vector<std::vector<int64_t>> output_shapes(const Signature& signature,
                                                const std::vector<InputInfo>& inputs) {
  const std::vector<Shape> shapes = shapes_of(inputs);
  std::vector<std::vector<int64_t>> found;
  for (const OutputSpec& spec : signature.outputs) {
    std::vector<int64_t> sizes;
    bool is_negative = false;
    for (const Size& size : spec.shape) {
      if (std::holds_alternative<DataDependentSize>(size)) {
        sizes.push_back(kUnknownSize);
        continue;
      }
      const SizeExpr* tree = std::get_if<SizeExpr>(&size);
      sizes.push_back(tree == nullptr ? std::get<int64_t>(size)
                                      : value_of(*tree, signature, inputs, shapes));
      is_negative = is_negative || sizes.back() < 0;
    }
    if (is_negative) {
      throw sizes_error(signature, inputs,
                        "output '" + spec.name + "' would have the shape " +
                            shape_text(sizes.data(), sizes.size()));
    }
    found.push_back(std::move(sizes));
  }
  return found;
}

bool has_zero_size(const std::vector<SizeExpr>& nonzero_sizes,
                   const std::vector<InputInfo>& inputs) {
  const std::vector<Shape> shapes = shapes_of(inputs);
  return std::any_of(nonzero_sizes.begin(), nonzero_sizes.end(), [&](const SizeExpr& tree) {
    try {
      return tree.evaluate(shapes) == 0;
    } catch (const ArithmeticError&) {
      return true;
    }
  });
}

}  // namespace portrt
