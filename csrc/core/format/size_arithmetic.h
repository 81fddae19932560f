// The arithmetic of size expressions: integers are exact, floats are IEEE binary64.
#pragma once

#include <cstdint>
#include <variant>

#include "core/format/size_expr.h"

namespace portrt {

using Number = std::variant<int64_t, double>;

// One step of an operator of two or more arguments; throws ArithmeticError for a division by zero
// and for integers beyond the limit.
Number combined(const Number& one, const Number& other, SizeOperator op);

// floor, ceil or trunc.
Number rounded(const Number& value, SizeOperator op);

// The same number, or ArithmeticError beyond +-kMaxSize; NaN is beyond.
Number bounded(const Number& value);

}  // namespace portrt
