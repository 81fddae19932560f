#include "core/error.h"

namespace portrt {

const char* const kFileRemedy =
    "get the file again from where it was made, or compile the model again";

const char* error_name(ErrorCode code) {
  switch (code) {
    case ErrorCode::settings: return "SettingsError";
    case ErrorCode::backend_unavailable: return "BackendUnavailableError";
    case ErrorCode::package: return "PackageError";
    case ErrorCode::load: return "LoadError";
    case ErrorCode::input: return "InputError";
    case ErrorCode::no_usable_engine: return "NoUsableEngineError";
    case ErrorCode::engine: return "EngineError";
    case ErrorCode::out_of_profile: return "OutOfProfileError";
  }
  return "PortrtError";
}

Error::Error(ErrorCode code, std::string happened, std::string expected, std::string remedy,
             std::optional<std::string> field)
    : code_(code),
      happened_(std::move(happened)),
      expected_(std::move(expected)),
      remedy_(std::move(remedy)),
      text_(happened_ + "\n  Expected: " + expected_ + "\n  Do: " + remedy_),
      field_(std::move(field)) {}

}  // namespace portrt
