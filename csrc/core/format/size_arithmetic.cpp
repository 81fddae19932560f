#include "core/format/size_arithmetic.h"

#include <cmath>

namespace portrt {
namespace {

[[noreturn]] void fail_beyond() {
  throw ArithmeticError("a size is beyond " + std::to_string(kMaxSize));
}

void check_divisor(bool is_zero) {
  if (is_zero) throw ArithmeticError("division by zero");
}

int64_t sum(int64_t one, int64_t other) {
  if (other > 0 ? one > kMaxSize - other : one < -kMaxSize - other) fail_beyond();
  return one + other;
}

int64_t product(int64_t one, int64_t other) {
  if (one == 0 || other == 0) return 0;
  const uint64_t limit = static_cast<uint64_t>(kMaxSize);
  const auto size_of = [](int64_t value) {
    return value < 0 ? 0 - static_cast<uint64_t>(value) : static_cast<uint64_t>(value);
  };
  if (size_of(one) > limit / size_of(other)) fail_beyond();
  return one * other;
}

int64_t floor_quotient(int64_t one, int64_t other) {
  const int64_t quotient = one / other;
  return one % other != 0 && (one < 0) != (other < 0) ? quotient - 1 : quotient;
}

int64_t floor_rest(int64_t one, int64_t other) {
  const int64_t rest = one % other;
  return rest != 0 && (rest < 0) != (other < 0) ? rest + other : rest;
}

int64_t power(int64_t base, int64_t exponent) {
  int64_t found = 1;
  for (int64_t step = 0; step < exponent; ++step) found = product(found, base);
  return found;
}

// The binary64 that is nearest to a quotient of integers, also of those that no binary64 has.
double nearest_quotient(int64_t one, int64_t other) {
  const bool negative = (one < 0) != (other < 0);
  const uint64_t dividend = static_cast<uint64_t>(one < 0 ? -one : one);
  const uint64_t divisor = static_cast<uint64_t>(other < 0 ? -other : other);
  if (dividend == 0) return 0.0;
  // More bits than a binary64 has, and the last one for whatever is left: so it is rounded once.
  constexpr uint64_t kEnough = uint64_t{1} << 55;
  uint64_t quotient = dividend / divisor, rest = dividend % divisor;
  int shift = 0;
  for (; quotient < kEnough; ++shift) {
    rest <<= 1;
    quotient = quotient << 1 | (rest >= divisor);
    if (rest >= divisor) rest -= divisor;
  }
  if (rest != 0) quotient |= 1;
  const double found = std::ldexp(static_cast<double>(quotient), -shift);
  return negative ? -found : found;
}

double floor_rest(double one, double other) {
  const double rest = std::fmod(one, other);
  return rest != 0 && (rest < 0) != (other < 0) ? rest + other : rest;
}

double floor_quotient(double one, double other) {
  const double rest = std::fmod(one, other);
  double quotient = (one - rest) / other;  // near an integer
  if (rest != 0 && (rest < 0) != (other < 0)) quotient -= 1;
  return std::round(quotient);
}

// Exact, also for integers that no binary64 has.
bool is_less(int64_t one, double other) {
  const double floor = std::floor(other);
  if (floor >= 0x1p63) return true;
  if (floor < -0x1p63) return false;
  const int64_t whole = static_cast<int64_t>(floor);
  return one < whole || (one == whole && other > floor);
}

bool is_less(double one, int64_t other) {
  const double ceiling = std::ceil(one);
  if (ceiling >= 0x1p63) return false;
  if (ceiling < -0x1p63) return true;
  const int64_t whole = static_cast<int64_t>(ceiling);
  return whole < other || (whole == other && one < ceiling);
}

bool is_less(int64_t one, int64_t other) { return one < other; }
bool is_less(double one, double other) { return one < other; }

bool is_less(const Number& one, const Number& other) {
  return std::visit([](auto a, auto b) { return is_less(a, b); }, one, other);
}

double real_of(const Number& value) {
  return std::visit([](auto number) { return static_cast<double>(number); }, value);
}

Number of_integers(int64_t one, int64_t other, SizeOperator op) {
  switch (op) {
    case SizeOperator::add: return sum(one, other);
    case SizeOperator::mul: return product(one, other);
    case SizeOperator::pow: return power(one, other);
    default: break;
  }
  check_divisor(other == 0);
  if (op == SizeOperator::floordiv) return floor_quotient(one, other);
  if (op == SizeOperator::mod) return floor_rest(one, other);
  return nearest_quotient(one, other);
}

Number of_reals(double one, double other, SizeOperator op) {
  switch (op) {
    case SizeOperator::add: return one + other;
    case SizeOperator::mul: return one * other;
    case SizeOperator::pow: return std::pow(one, other);
    default: break;
  }
  check_divisor(other == 0);
  if (op == SizeOperator::floordiv) return floor_quotient(one, other);
  if (op == SizeOperator::mod) return floor_rest(one, other);
  return one / other;
}

}  // namespace

Number combined(const Number& one, const Number& other, SizeOperator op) {
  if (op == SizeOperator::max) return is_less(one, other) ? other : one;
  if (op == SizeOperator::min) return is_less(other, one) ? other : one;
  const int64_t* a = std::get_if<int64_t>(&one);
  const int64_t* b = std::get_if<int64_t>(&other);
  if (a != nullptr && b != nullptr) return of_integers(*a, *b, op);
  return of_reals(real_of(one), real_of(other), op);
}

Number rounded(const Number& value, SizeOperator op) {
  const double* real = std::get_if<double>(&value);
  if (real == nullptr) return value;
  // Within +-2^62: every step before was.
  const double whole = op == SizeOperator::floor  ? std::floor(*real)
                       : op == SizeOperator::ceil ? std::ceil(*real)
                                                  : std::trunc(*real);
  return static_cast<int64_t>(whole);
}

Number bounded(const Number& value) {
  if (const int64_t* integer = std::get_if<int64_t>(&value)) {
    if (*integer < -kMaxSize || *integer > kMaxSize) fail_beyond();
  } else {
    const double real = std::get<double>(value), limit = static_cast<double>(kMaxSize);
    if (!(real >= -limit && real <= limit)) fail_beyond();
  }
  return value;
}

}  // namespace portrt
