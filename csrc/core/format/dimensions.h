// Sizes in the shapes of a manifest.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "core/format/size_expr.h"

namespace portrt {

class Fields;

constexpr size_t kMaxRank = 64;

// A dynamic size of an input.
struct Dimension {
  int64_t min = 0;
  int64_t opt = 0;             // that engines are tuned for
  std::optional<int64_t> max;  // none if unbounded
  std::string symbol;          // equal symbols are equal sizes
  // min, opt and max in each optimization profile; empty if there is only one, the whole range.
  std::vector<std::array<int64_t, 3>> profiles;
};

// A data-dependent size of an output: at most `max`; one symbol is one size in each call.
struct DataDependentSize {
  std::optional<int64_t> max;
  std::string symbol;
};

// Inputs have the first three kinds (an expression is a condition), outputs all but a Dimension.
using Size = std::variant<int64_t, SizeExpr, Dimension, DataDependentSize>;

// Read the shape of an input, and append its rank to those of the inputs before it.
std::vector<Size> read_input_shape(const Fields& entry, std::vector<size_t>& ranks);
std::vector<Size> read_output_shape(const Fields& entry, const std::vector<size_t>& ranks);

}  // namespace portrt
