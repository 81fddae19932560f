// Size expressions: small trees over input dimensions, see "The manifest" in docs/format.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/format/json.h"

namespace portrt {

constexpr int64_t kMaxSize = int64_t{1} << 62;  // also of every step on the way to a size
constexpr int kMaxSizeDepth = 64;
constexpr int kMaxSizeTerms = 4096;
constexpr int kMaxExponent = 16;

// Division by zero, or a step beyond +-kMaxSize. `what()` is one line.
class ArithmeticError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

enum class SizeOperator : uint8_t {
  // terms without arguments
  integer,
  real,
  dim,
  // two or more
  add,
  mul,
  max,
  min,
  // two
  floordiv,
  truediv,
  mod,
  pow,
  // one
  floor,
  ceil,
  trunc,
};

// Sizes of a tensor, which the caller keeps.
struct Shape {
  const int64_t* sizes = nullptr;
  size_t rank = 0;
};

class SizeExpr {
 public:
  // Check a tree that was read from a file, and translate it.
  //   ranks: number of dimensions of each input that it may refer to
  //   where: description of the tree, for messages
  //   path: JSON pointer of the tree
  // Throws Error (package) with the field at fault.
  static SizeExpr read(const Json& tree, const std::vector<size_t>& ranks, const std::string& where,
                       const std::string& path);

  // The value for inputs of these shapes, whose ranks must be those that it was read with.
  // Throws ArithmeticError.
  int64_t evaluate(const Shape* shapes) const;
  int64_t evaluate(const std::vector<Shape>& shapes) const { return evaluate(shapes.data()); }

  // The tree as the file has it.
  const Json& tree() const { return tree_; }

 private:
  using Operator = SizeOperator;
  struct Term {
    Operator op = Operator::integer;
    uint32_t count = 0;   // arguments
    int64_t integer = 0;  // its value; of a dimension the input
    uint32_t axis = 0;
    double real = 0;
  };
  struct Row;     // of the table of operators
  struct Reader;  // one traversal of a tree

  Json tree_;
  std::vector<Term> terms_;  // each after its arguments
};

}  // namespace portrt
