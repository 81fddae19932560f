// Reading and evaluation of size expressions; the arithmetic is in size_arithmetic.cpp.
#include "core/format/size_expr.h"

#include <algorithm>
#include <array>

#include "core/error.h"
#include "core/format/fields.h"
#include "core/format/size_arithmetic.h"

namespace portrt {

struct SizeExpr::Row {
  const char* name;
  Operator op;
  size_t minimum, maximum;  // number of arguments; 0 for no maximum
};

namespace {

const char* const kRemedy = "get the file again from where it was made";

bool within_limit(const Json& tree) {
  if (const int64_t* integer = tree.integer()) return *integer >= -kMaxSize && *integer <= kMaxSize;
  if (const double* real = tree.real()) {
    return *real >= -static_cast<double>(kMaxSize) && *real <= static_cast<double>(kMaxSize);
  }
  return false;
}

}  // namespace

// One traversal of a tree, which counts its terms.
struct SizeExpr::Reader {
  const std::vector<size_t>& ranks;
  const std::string& where;
  const std::string& path;
  std::vector<Term>& terms;
  int left = kMaxSizeTerms;

  static constexpr std::array<Row, 11> kRows = {{
      {"add", Operator::add, 2, 0},
      {"mul", Operator::mul, 2, 0},
      {"max", Operator::max, 2, 0},
      {"min", Operator::min, 2, 0},
      {"floordiv", Operator::floordiv, 2, 2},
      {"truediv", Operator::truediv, 2, 2},
      {"mod", Operator::mod, 2, 2},
      {"pow", Operator::pow, 2, 2},
      {"floor", Operator::floor, 1, 1},
      {"ceil", Operator::ceil, 1, 1},
      {"trunc", Operator::trunc, 1, 1},
  }};

  Error bad(const std::string& at, const std::string& fact, const std::string& expected) const {
    return Error(ErrorCode::package, where + " " + fact, expected, kRemedy, at);
  }

  // Returns whether the value is an integer, whatever the sizes.
  bool read(const Json& tree, const std::string& at, int depth) {
    if (--left < 0 || depth > kMaxSizeDepth) {
      throw bad(path, "is too large",
                "at most " + std::to_string(kMaxSizeDepth) + " levels and " +
                    std::to_string(kMaxSizeTerms) + " terms");
    }
    if (tree.array() != nullptr) return read_call(tree, at, depth);
    if (!tree.integer() && !tree.huge_integer() && !tree.real()) {
      throw bad(at, "contains " + tree.brief(), "numbers and lists");
    }
    if (!within_limit(tree)) {
      throw bad(at, "contains " + tree.brief(), "numbers within +-" + std::to_string(kMaxSize));
    }
    Term term;
    term.op = tree.integer() ? Operator::integer : Operator::real;
    if (tree.integer()) term.integer = *tree.integer();
    if (tree.real()) term.real = *tree.real();
    terms.push_back(term);
    return tree.integer() != nullptr;
  }

  bool read_call(const Json& tree, const std::string& at, int depth) {
    const Json::Array& items = *tree.array();
    const std::string* name = items.empty() ? nullptr : items[0].string();
    if (name != nullptr && *name == "dim") {
      read_dimension(tree, at);
      return true;
    }
    const auto row = std::find_if(kRows.begin(), kRows.end(), [&](const Row& candidate) {
      return name != nullptr && *name == candidate.name;
    });
    if (row == kRows.end()) {
      throw bad(at, "uses " + (items.empty() ? "nothing" : items[0].brief()), operators());
    }
    const size_t count = items.size() - 1;
    if (count < row->minimum || (row->maximum != 0 && count > row->maximum)) {
      throw bad(at, "gives " + *name + " " + std::to_string(count) + " arguments",
                (row->maximum == 0 ? "at least " : "") + std::to_string(row->minimum));
    }
    if (row->op == Operator::pow) check_exponent(items[2], pointer(at, 2));
    bool all_integral = true;
    for (size_t index = 1; index < items.size(); ++index) {
      const bool is_integral = read(items[index], pointer(at, index), depth + 1);
      all_integral = all_integral && is_integral;
    }
    Term term;
    term.op = row->op;
    term.count = static_cast<uint32_t>(count);
    terms.push_back(term);
    if (row->maximum == 1) return true;  // floor, ceil, trunc
    return all_integral && row->op != Operator::truediv;
  }

  void read_dimension(const Json& tree, const std::string& at) {
    const Json::Array& items = *tree.array();
    const int64_t* input = items.size() == 3 ? items[1].integer() : nullptr;
    const int64_t* axis = items.size() == 3 ? items[2].integer() : nullptr;
    const bool is_known = input != nullptr && axis != nullptr && *input >= 0 &&
                          static_cast<uint64_t>(*input) < ranks.size() && *axis >= 0 &&
                          static_cast<uint64_t>(*axis) < ranks[static_cast<size_t>(*input)];
    if (!is_known) {
      throw bad(at, "refers to " + tree.brief(), "[\"dim\", input, axis] of an input");
    }
    Term term;
    term.op = Operator::dim;
    term.integer = *input;
    term.axis = static_cast<uint32_t>(*axis);
    terms.push_back(term);
  }

  void check_exponent(const Json& exponent, const std::string& at) const {
    const int64_t* value = exponent.integer();
    if (value == nullptr || *value < 0 || *value > kMaxExponent) {
      throw bad(at, "raises to " + exponent.brief(),
                "an integer exponent up to " + std::to_string(kMaxExponent));
    }
  }

  static std::string operators() {
    std::string found = "dim";
    for (const Row& row : kRows) found += std::string(", ") + row.name;
    return found;
  }
};

SizeExpr SizeExpr::read(const Json& tree, const std::vector<size_t>& ranks,
                        const std::string& where, const std::string& path) {
  SizeExpr found;
  Reader reader{ranks, where, path, found.terms_};
  if (!reader.read(tree, path, 0)) {
    throw Error(ErrorCode::package, where + " is the fraction " + tree.brief(),
                "an integer: floor, ceil or trunc", kRemedy, path);
  }
  found.tree_ = tree;
  return found;
}

int64_t SizeExpr::evaluate(const Shape* shapes) const {
  std::vector<Number> stack;
  stack.reserve(terms_.size());
  for (const Term& term : terms_) {
    switch (term.op) {
      case Operator::integer: stack.emplace_back(term.integer); continue;
      case Operator::real: stack.emplace_back(term.real); continue;
      case Operator::dim:
        stack.emplace_back(shapes[static_cast<size_t>(term.integer)].sizes[term.axis]);
        continue;
      default: break;
    }
    const size_t first = stack.size() - term.count;
    Number total = stack[first];
    if (term.count == 1) total = bounded(rounded(total, term.op));
    for (size_t index = first + 1; index < stack.size(); ++index) {
      total = bounded(combined(total, stack[index], term.op));
    }
    stack.resize(first);
    stack.push_back(total);
  }
  return std::get<int64_t>(stack.back());
}

}  // namespace portrt
