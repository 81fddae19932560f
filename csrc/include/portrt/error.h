// The errors of portrt: what happened, what was expected, what to do.
#pragma once

#include <exception>
#include <optional>
#include <string>

#include "portrt/runtime.h"

namespace portrt {

// One for each error class of the Python package that a program without Python can meet.
enum class ErrorCode {
  settings,             // SettingsError: an option is unknown or has an invalid value
  backend_unavailable,  // BackendUnavailableError
  package,              // PackageError: a manifest or its blobs are damaged or inconsistent
  load,                 // LoadError: a file could not be read as a program
  input,                // InputError: an input of a call has the wrong dtype, shape or device
  no_usable_engine,     // NoUsableEngineError
  engine,               // EngineError: an engine failed while it was opened or run
  out_of_profile,       // OutOfProfileError: sizes are in none of an engine's profiles
};

// The name of the Python class, such as "PackageError".
PORTRT_EXPORT const char* error_name(ErrorCode code);

class PORTRT_EXPORT Error : public std::exception {
 public:
  // `field`, of a PackageError: a JSON pointer into the manifest; "" is the whole text.
  Error(ErrorCode code, std::string happened, std::string expected, std::string remedy,
        std::optional<std::string> field = std::nullopt);

  ErrorCode code() const { return code_; }
  const std::string& happened() const { return happened_; }
  const std::string& expected() const { return expected_; }
  const std::string& remedy() const { return remedy_; }
  const std::optional<std::string>& field() const { return field_; }

  // The three texts on three lines, as Python's `str(error)`.
  const char* what() const noexcept override { return text_.c_str(); }

 private:
  ErrorCode code_;
  std::string happened_, expected_, remedy_, text_;
  std::optional<std::string> field_;
};

}  // namespace portrt
