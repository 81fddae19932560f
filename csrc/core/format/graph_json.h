// Parts of a program's JSON, which have torch's form or end in UnknownForm.
#pragma once

#include <string>

#include "core/format/fields.h"
#include "core/format/json.h"

namespace portrt {

// A form of the program's JSON that is not torch's; becomes an error that names the file.
struct UnknownForm {
  std::string what;
};

inline const Json& member(const Json& object, const char* key) {
  const Json* found = object.find(key);
  if (found == nullptr) throw UnknownForm{std::string("no ") + quoted(key)};
  return *found;
}

inline const std::string& text(const Json& value) {
  if (value.string() == nullptr) throw UnknownForm{value.brief() + " is not a string"};
  return *value.string();
}

inline const Json::Array& list(const Json& value) {
  if (value.array() == nullptr) throw UnknownForm{value.brief() + " is not a list"};
  return *value.array();
}

}  // namespace portrt
