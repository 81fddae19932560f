// Checks of the tests: each failure is printed, and counts.
#pragma once

#include <fstream>
#include <iostream>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>

#include "core/format/json.h"

namespace portrt::tests {

class Checks {
 public:
  // One thing that must hold; `name` says which.
  void that(bool holds, const std::string& name, const std::string& detail = "") {
    ++count_;
    if (holds) return;
    ++failures_;
    std::cerr << "FAILED: " << name << (detail.empty() ? "" : ": " + detail) << "\n";
  }

  // Print the counts; returns the exit status. No check at all is a failure.
  int status() const {
    std::cout << count_ << " checks, " << failures_ << " failures\n";
    return count_ > 0 && failures_ == 0 ? 0 : 1;
  }

 private:
  int count_ = 0, failures_ = 0;
};

inline std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

inline const Json& field(const Json& object, const char* key) {
  const Json* found = object.find(key);
  if (found == nullptr) throw std::runtime_error(std::string("a case has no ") + key);
  return *found;
}

inline const std::string& text_field(const Json& object, const char* key) {
  const std::string* found = field(object, key).string();
  if (found == nullptr) throw std::runtime_error(std::string(key) + " of a case is no text");
  return *found;
}

inline const Json::Array& list_field(const Json& object, const char* key) {
  const Json::Array* found = field(object, key).array();
  if (found == nullptr) throw std::runtime_error(std::string(key) + " of a case is no list");
  return *found;
}

inline std::optional<std::string> text_or_none(const Json& object, const char* key) {
  const Json* found = object.find(key);
  return found == nullptr ? std::nullopt : std::optional<std::string>(*found->string());
}

// A manifest of a case: a text, or pieces to repeat and join.
inline std::string manifest_text(const Json& given) {
  if (given.string() != nullptr) return *given.string();
  std::string found;
  for (const Json& piece : *given.array()) {
    const std::string& text = *piece.array()->at(0).string();
    const int64_t count = *piece.array()->at(1).integer();
    for (int64_t index = 0; index < count; ++index) found += text;
  }
  return found;
}

}  // namespace portrt::tests
