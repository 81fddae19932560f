// Strict JSON: duplicate keys, numbers that are not finite and bad UTF-8 are errors.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace portrt {

// A text that is no strict JSON; `Error`s with a field are made of it where the text is known.
class JsonError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Lists and objects inside each other; deeper ones are refused as no JSON.
constexpr int kMaxJsonDepth = 1000;

class Json {
 public:
  struct Member;
  using Array = std::vector<Json>;
  using Object = std::vector<Member>;  // sorted by key, no key twice
  // An integer beyond 64 bits: its digits, and a sign.
  struct HugeInteger {
    std::string digits;
  };

  Json() = default;
  Json(std::nullptr_t) {}
  Json(bool value) : value_(value) {}
  Json(int value) : value_(static_cast<int64_t>(value)) {}
  Json(int64_t value) : value_(value) {}
  Json(double value) : value_(value) {}
  Json(const char* value) : value_(std::string(value)) {}
  Json(std::string value) : value_(std::move(value)) {}
  Json(HugeInteger value) : value_(std::move(value)) {}
  Json(Array value) : value_(std::move(value)) {}
  Json(Object value);  // sorts it; throws JsonError for a key that is there twice

  // Parse UTF-8 text; throws JsonError.
  static Json parse(std::string_view text);

  bool is_null() const { return std::holds_alternative<std::monostate>(value_); }

  // The value, or null where it is of another kind. An integer is never a double or a bool.
  const bool* boolean() const { return std::get_if<bool>(&value_); }
  const int64_t* integer() const { return std::get_if<int64_t>(&value_); }
  const double* real() const { return std::get_if<double>(&value_); }
  const std::string* string() const { return std::get_if<std::string>(&value_); }
  const HugeInteger* huge_integer() const { return std::get_if<HugeInteger>(&value_); }
  const Array* array() const { return std::get_if<Array>(&value_); }
  const Object* object() const { return std::get_if<Object>(&value_); }

  // The value of a key, or null where this is no object or has no such key.
  const Json* find(std::string_view key) const;

  // As JSON without spaces, in ASCII; doubles in the shortest form that reads back.
  std::string dump() const;
  // The beginning of `dump()`, for messages; its time does not depend on the size of the value.
  std::string brief(size_t limit = 60) const;

  // Equal values of equal kinds: 1 is not 1.0.
  friend bool operator==(const Json& one, const Json& other);
  friend bool operator!=(const Json& one, const Json& other) { return !(one == other); }

 private:
  std::variant<std::monostate, bool, int64_t, HugeInteger, double, std::string, Array, Object>
      value_;
};

struct Json::Member {
  std::string key;
  Json value;
};

}  // namespace portrt
