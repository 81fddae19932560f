#include "core/format/json.h"

#include <algorithm>
#include <locale>
#include <sstream>

#include "core/format/utf8.h"

namespace portrt {
namespace {

bool by_key(const Json::Member& one, const Json::Member& other) { return one.key < other.key; }

// Writes until a limit of bytes is passed, so that messages about large values cost little.
class Writer {
 public:
  explicit Writer(size_t limit) : limit_(limit) {}

  void write(const Json& value) {
    if (text.size() > limit_) return;
    if (value.is_null()) {
      text += "null";
    } else if (const bool* flag = value.boolean()) {
      text += *flag ? "true" : "false";
    } else if (const int64_t* integer = value.integer()) {
      text += std::to_string(*integer);
    } else if (const Json::HugeInteger* huge = value.huge_integer()) {
      text.append(huge->digits, 0, limit_);
    } else if (const double* real = value.real()) {
      write_real(*real);
    } else if (const std::string* string = value.string()) {
      write_string(*string);
    } else if (const Json::Array* array = value.array()) {
      write_all('[', *array, ']', [this](const Json& item) { write(item); });
    } else {
      write_all('{', *value.object(), '}', [this](const Json::Member& member) {
        write_string(member.key);
        text += ':';
        write(member.value);
      });
    }
  }

  std::string text;

 private:
  template <class Items, class Write>
  void write_all(char open, const Items& items, char close, Write write_item) {
    text += open;
    bool first = true;
    for (const auto& item : items) {
      if (text.size() > limit_) return;
      if (!first) text += ',';
      first = false;
      write_item(item);
    }
    text += close;
  }

  // In the fewest digits that read back, and with a point or an exponent.
  void write_real(double value) {
    std::string found;
    for (int digits = 1; digits <= 17; ++digits) {
      std::ostringstream stream;
      stream.imbue(std::locale::classic());
      stream.precision(digits);
      stream << value;
      found = stream.str();
      std::istringstream back(found);
      back.imbue(std::locale::classic());
      double read = 0;
      if (back >> read && read == value) break;
    }
    text += found;
    if (found.find_first_of(".e") == std::string::npos) text += ".0";
  }

  void write_string(const std::string& value) {
    text += '"';
    for (size_t at = 0; at < value.size() && text.size() <= limit_;) {
      write_char(next_char(value, at));
    }
    text += '"';
  }

  void write_char(char32_t code) {
    if (code == U'"' || code == U'\\') {
      text += '\\';
      text += static_cast<char>(code);
    } else if (code >= 0x20 && code < 0x7f) {
      text += static_cast<char>(code);
    } else if (code < 0x10000) {
      write_escape(code);
    } else {
      write_escape(0xd800 + ((code - 0x10000) >> 10));
      write_escape(0xdc00 + ((code - 0x10000) & 0x3ff));
    }
  }

  void write_escape(char32_t unit) {
    text += "\\u";
    for (int shift = 12; shift >= 0; shift -= 4) text += "0123456789abcdef"[(unit >> shift) & 15];
  }

  size_t limit_;
};

}  // namespace

Json::Json(Object value) {
  std::sort(value.begin(), value.end(), by_key);
  const auto twice = std::adjacent_find(
      value.begin(), value.end(),
      [](const Member& one, const Member& other) { return one.key == other.key; });
  if (twice != value.end()) throw JsonError("an object has a duplicate key");
  value_ = std::move(value);
}

const Json* Json::find(std::string_view key) const {
  const Object* members = object();
  if (members == nullptr) return nullptr;
  const auto found = std::lower_bound(
      members->begin(), members->end(), key,
      [](const Member& member, std::string_view wanted) { return member.key < wanted; });
  return found == members->end() || found->key != key ? nullptr : &found->value;
}

std::string Json::dump() const {
  Writer writer(std::string::npos);
  writer.write(*this);
  return std::move(writer.text);
}

std::string Json::brief(size_t limit) const {
  Writer writer(limit);
  writer.write(*this);
  return writer.text.substr(0, limit);
}

bool operator==(const Json& one, const Json& other) {
  if (const Json::HugeInteger* huge = one.huge_integer()) {
    const Json::HugeInteger* another = other.huge_integer();
    return another != nullptr && huge->digits == another->digits;
  }
  if (const Json::Array* array = one.array()) {
    const Json::Array* another = other.array();
    return another != nullptr && *array == *another;
  }
  if (const Json::Object* object = one.object()) {
    const Json::Object* another = other.object();
    return another != nullptr &&
           std::equal(object->begin(), object->end(), another->begin(), another->end(),
                      [](const Json::Member& a, const Json::Member& b) {
                        return a.key == b.key && a.value == b.value;
                      });
  }
  if (one.is_null() || other.is_null()) return one.is_null() && other.is_null();
  if (one.boolean()) return other.boolean() && *one.boolean() == *other.boolean();
  if (one.integer()) return other.integer() && *one.integer() == *other.integer();
  if (one.real()) return other.real() && *one.real() == *other.real();
  return other.string() && *one.string() == *other.string();
}

}  // namespace portrt
