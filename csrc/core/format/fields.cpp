#include "core/format/fields.h"

#include <algorithm>
#include <iterator>

#include "core/format/size_expr.h"
#include "core/format/utf8.h"

namespace portrt {
namespace {

struct Range {
  char32_t first, last;
};

constexpr Range kUnprintable[] = {
#include "core/format/unprintable.inc"
};

constexpr size_t kShown = 80;

std::string size_words() { return "an integer from 0 to " + std::to_string(kMaxSize); }

Error error_at(std::string path, std::string happened, std::string expected) {
  return Error(ErrorCode::package, std::move(happened), std::move(expected), kFileRemedy,
               std::move(path));
}

// Whether lists and objects are nested deeper than `levels` below a list or an object.
bool is_deeper_than(const Json& tree, int levels) {
  const auto is_deep = [&](const Json& item) {
    if (item.array() == nullptr && item.object() == nullptr) return false;
    return levels == 0 || is_deeper_than(item, levels - 1);
  };
  if (const Json::Array* items = tree.array()) {
    return std::any_of(items->begin(), items->end(), is_deep);
  }
  const Json::Object& members = *tree.object();
  return std::any_of(members.begin(), members.end(),
                     [&](const Json::Member& member) { return is_deep(member.value); });
}

}  // namespace

std::string pointer(const std::string& parent, std::string_view key) {
  std::string found = parent + "/";
  for (char letter : key) {
    if (letter == '~') {
      found += "~0";
    } else if (letter == '/') {
      found += "~1";
    } else {
      found += letter;
    }
  }
  return found;
}

std::string pointer(const std::string& parent, size_t index) {
  return parent + "/" + std::to_string(index);
}

std::string quoted(std::string_view text) {
  std::string found = "'";
  for (size_t at = 0; at < text.size() && found.size() < kShown;) {
    const size_t begin = at;
    next_char(text, at);
    found += text.substr(begin, at - begin);
  }
  return found + "'";
}

bool is_printable(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const char32_t code = next_char(text, at);
    const Range* found =
        std::lower_bound(std::begin(kUnprintable), std::end(kUnprintable), code,
                         [](const Range& range, char32_t wanted) { return range.last < wanted; });
    if (found == std::end(kUnprintable) || found->first <= code) return false;
  }
  return true;
}

size_t count_chars(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char byte) {
    return (static_cast<unsigned char>(byte) & 0xc0) != 0x80;
  }));
}

Fields::Fields(const Json& object, std::string where, std::string path)
    : object_(&object), where_(std::move(where)), path_(std::move(path)) {
  if (object.object() == nullptr) {
    throw error_at(path_, where_ + " is " + object.brief(), "a JSON object");
  }
}

bool Fields::is_absent(std::string_view key) const {
  const Json* value = find(key);
  return value == nullptr || value->is_null();
}

bool Fields::is_null(std::string_view key) const {
  const Json* value = find(key);
  if (value == nullptr) {
    throw error_at(at(key), where_ + " has no " + quoted(key), "a value, or null");
  }
  return value->is_null();
}

Error Fields::bad(std::string_view key, const std::string& fact,
                  const std::string& expected) const {
  return error_at(at(key), quoted(key) + " of " + where_ + " " + fact, expected);
}

namespace {

// The error for a field that is absent or of another type.
Error wrong_type(const Fields& fields, std::string_view key, const std::string& expected) {
  const Json* value = fields.find(key);
  return fields.bad(key, value == nullptr ? "is not there" : "is " + value->brief(), expected);
}

}  // namespace

Fields Fields::part(std::string_view key) const {
  const Json* value = find(key);
  if (value == nullptr || !value->object()) throw wrong_type(*this, key, "a JSON object");
  return Fields(*value, quoted(key) + " of " + where_, at(key));
}

std::string Fields::text(std::string_view key) const {
  const Json* value = find(key);
  if (value == nullptr || !value->string()) throw wrong_type(*this, key, "a string");
  const std::string& found = *value->string();
  if (count_chars(found) > kMaxTextChars || !is_printable(found)) {
    throw bad(key, "is " + value->brief(),
              "printable text of up to " + std::to_string(kMaxTextChars) + " characters");
  }
  return found;
}

bool Fields::boolean(std::string_view key) const {
  const Json* value = find(key);
  if (value == nullptr || !value->boolean()) throw wrong_type(*this, key, "true or false");
  return *value->boolean();
}

int64_t Fields::integer(std::string_view key) const {
  const Json* value = find(key);
  const int64_t* found = value == nullptr ? nullptr : value->integer();
  if (found == nullptr || *found < 0 || *found > kMaxSize)
    throw wrong_type(*this, key, size_words());
  return *found;
}

const Json::Array& Fields::items(std::string_view key) const {
  const Json* value = find(key);
  if (value == nullptr || !value->array()) throw wrong_type(*this, key, "a list");
  const size_t count = value->array()->size();
  if (count > kMaxItems) {
    throw bad(key, "has " + std::to_string(count) + " items", "up to " + std::to_string(kMaxItems));
  }
  return *value->array();
}

const Json& Fields::mapping(std::string_view key) const {
  const Json* value = find(key);
  if (value == nullptr || !value->object()) throw wrong_type(*this, key, "a JSON object");
  if (is_deeper_than(*value, kMaxFieldDepth)) {
    throw bad(key, "is nested too deep", "up to " + std::to_string(kMaxFieldDepth) + " levels");
  }
  return *value;
}

std::map<std::string, std::string> Fields::texts(std::string_view key) const {
  const Fields inner = part(key);
  std::map<std::string, std::string> found;
  for (const Json::Member& member : *inner.object().object()) {
    found[member.key] = inner.text(member.key);
  }
  return found;
}

std::vector<std::string> Fields::names(std::string_view key) const {
  std::vector<std::string> found;
  bool is_valid = true;
  for (const Json& item : items(key)) {
    is_valid = is_valid && item.string() != nullptr;
    if (is_valid) found.push_back(*item.string());
  }
  std::vector<std::string> sorted = found;
  std::sort(sorted.begin(), sorted.end());
  if (!is_valid || std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end()) {
    throw wrong_type(*this, key, "distinct strings");
  }
  return found;
}

}  // namespace portrt
