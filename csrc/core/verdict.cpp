#include "core/verdict.h"

#include <array>

namespace portrt {
namespace {

constexpr std::array kNames = {
    "ok",
    "policy",
    "unknown_backend",
    "wrong_device",
    "wrong_platform",
    "no_gpu",
    "wrong_gpu",
    "driver_too_old",
    "library_missing",
    "library_version",
    "requirement_missing",
    "untrusted_code",
    "source_missing",
    "open_failed",
    "check_failed",
    "no_builder",
    "build_failed",
};
static_assert(kNames.size() == static_cast<size_t>(VerdictCode::build_failed) + 1);

}  // namespace

const char* code_name(VerdictCode code) { return kNames[static_cast<size_t>(code)]; }

std::optional<VerdictCode> code_named(std::string_view name) {
  for (size_t index = 0; index < kNames.size(); ++index) {
    if (name == kNames[index]) return static_cast<VerdictCode>(index);
  }
  return std::nullopt;
}

std::string Verdict::text() const {
  std::string found = *this ? "yes" : "no";
  if (!reason.empty()) found += ": " + reason;
  if (!*this && !remedy.empty()) found += " (" + remedy + ")";
  return found;
}

}  // namespace portrt
