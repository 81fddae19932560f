// Typed fields of JSON objects: whatever a hostile file contains is an Error with its field.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"
#include "core/format/json.h"

namespace portrt {

constexpr size_t kMaxItems = 65536;
constexpr size_t kMaxTextChars = 1024;
constexpr int kMaxFieldDepth = 32;

// The JSON pointer (RFC 6901) of a value below the one that `parent` points at.
std::string pointer(const std::string& parent, std::string_view key);
std::string pointer(const std::string& parent, size_t index);

// A text in quotes, as far as a message shows it.
std::string quoted(std::string_view text);

// Whether text is of printable characters alone: of none of Unicode's categories Other and
// Separator, except the space. The text is UTF-8.
bool is_printable(std::string_view text);
// Number of characters of UTF-8 text.
size_t count_chars(std::string_view text);

// Reads the fields of one object; every error names the object and the field.
class Fields {
 public:
  //   object: must live as long as this
  //   where: description of the object, for messages
  //   path: JSON pointer of the object
  Fields(const Json& object, std::string where, std::string path = "");

  const Json& object() const { return *object_; }
  const std::string& where() const { return where_; }
  const std::string& path() const { return path_; }
  void set_where(std::string where) { where_ = std::move(where); }

  std::string at(std::string_view key) const { return pointer(path_, key); }
  bool has(std::string_view key) const { return find(key) != nullptr; }
  // The value, or null where the field is absent.
  const Json* find(std::string_view key) const { return object_->find(key); }
  // Whether a field is absent or null.
  bool is_absent(std::string_view key) const;
  // Whether a field, which must be there, is null.
  bool is_null(std::string_view key) const;

  // The error for an invalid field; `fact` follows its name in the message.
  Error bad(std::string_view key, const std::string& fact, const std::string& expected) const;

  // The fields of a nested object.
  Fields part(std::string_view key) const;
  // Printable text of bounded length.
  std::string text(std::string_view key) const;
  bool boolean(std::string_view key) const;
  // From 0 to 2^62.
  int64_t integer(std::string_view key) const;
  const Json::Array& items(std::string_view key) const;
  // An object of bounded depth.
  const Json& mapping(std::string_view key) const;
  std::map<std::string, std::string> texts(std::string_view key) const;
  // Distinct strings.
  std::vector<std::string> names(std::string_view key) const;

 private:
  const Json* object_;
  std::string where_, path_;
};

}  // namespace portrt
